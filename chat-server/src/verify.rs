//! Signatures, checked beside the engine and not inside its turn.

use std::num::NonZeroUsize;
use std::sync::Arc;

use chatcore::id::{ConnId, PublicKey, Signature};
use ed25519_dalek::VerifyingKey;
use tokio::sync::{Semaphore, mpsc};

use crate::host::Message;

/// Checks signatures on as many threads as there are cores.
///
/// At most one check per connection waits here, and connections that have not logged in are
/// bounded, so what waits is bounded too.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    permits: Arc<Semaphore>,
    answers: mpsc::Sender<Message>,
}

impl Verifier {
    pub(crate) fn new(cores: NonZeroUsize, answers: mpsc::Sender<Message>) -> Self {
        Self { permits: Arc::new(Semaphore::new(cores.get())), answers }
    }

    /// Begins a check; its outcome comes to the engine as a message.
    pub(crate) fn begin(
        &self,
        conn: ConnId,
        key: PublicKey,
        message: Vec<u8>,
        signature: Signature,
    ) {
        let Self { permits, answers } = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else { return };
            let check = move || is_valid(&key, &message, &signature);
            let valid = tokio::task::spawn_blocking(check).await.unwrap_or(false);
            // The engine is gone: so is everybody who waits for the answer.
            let _ = answers.send(Message::Verified { conn, valid }).await;
        });
    }
}

/// Strict verification: refuses keys of small order and signatures with a second spelling.
fn is_valid(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    #[test]
    fn signature_is_valid_only_for_its_key_and_message() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = PublicKey::new(key.verifying_key().to_bytes());
        let signature = Signature::new(key.sign(b"hello").to_bytes());
        assert!(is_valid(&public, b"hello", &signature));
        assert!(!is_valid(&public, b"hullo", &signature));
        assert!(!is_valid(&PublicKey::new([0; 32]), b"hello", &signature));
    }
}
