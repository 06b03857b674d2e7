//! Signatures, checked beside the engine and not inside its turn.

use chatcore::id::{ConnId, PublicKey, Signature};
use ed25519_dalek::VerifyingKey;
use tokio::sync::mpsc;

use crate::crew::{Crew, Full, Line};
use crate::host::Message;

/// Checks that may wait or be under way: what two cores do in less than a tenth of a second.
///
/// The bound on connections does not bound them: a check outlives a connection that goes away.
const CHECKS_MAX: usize = 1_024;

/// Checks signatures of log-ins and orders.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    line: Line,
    answers: mpsc::Sender<Message>,
}

impl Verifier {
    pub(crate) fn new(crew: &Crew, answers: mpsc::Sender<Message>) -> Self {
        Self { line: crew.line(CHECKS_MAX), answers }
    }

    /// Begins a check; its outcome comes to the engine as a message. Nothing begins when there are
    /// too many.
    pub(crate) fn begin(
        &self,
        conn: ConnId,
        key: PublicKey,
        message: Vec<u8>,
        signature: Signature,
    ) -> Result<(), Full> {
        let turn = self.line.join()?;
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let check = move || is_valid(&key, &message, &signature);
            let valid = turn.work(check).await.unwrap_or(false);
            // The engine is gone: so is everybody who waits for the answer.
            let _ = answers.send(Message::Verified { conn, valid }).await;
        });
        Ok(())
    }
}

/// Strict verification: refuses keys of small order and signatures with a second spelling.
pub(crate) fn is_valid(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    #[tokio::test]
    async fn c9_checks_that_wait_are_bounded_and_give_their_place_back() {
        let (answers, mut inbox) = mpsc::channel(CHECKS_MAX);
        let verifier = Verifier::new(&Crew::new(NonZeroUsize::MIN), answers);
        let begin = |number: usize| {
            let (key, signature) = (PublicKey::new([1; 32]), Signature::new([1; 64]));
            let conn = ConnId::new(u64::try_from(number).unwrap());
            verifier.begin(conn, key, b"log-in".to_vec(), signature)
        };
        for number in 0..CHECKS_MAX {
            assert_eq!(begin(number), Ok(()));
        }
        assert_eq!(begin(CHECKS_MAX), Err(Full));
        for _ in 0..CHECKS_MAX {
            assert!(matches!(inbox.recv().await, Some(Message::Verified { valid: false, .. })));
        }
        while begin(0).is_err() {
            tokio::task::yield_now().await;
        }
    }

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
