//! The rules of the registers of a directory, one by one, and many nodes that race for them.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::collections::BTreeMap;

use chatcore::id::{BootId, Generation, KeyHash, LogId, PublicKey, Signature};
use chatcore::migration::NodeId;
use chatcore::migration::directory::{
    Claim, ClaimFault, Host, ProvenClaim, Registers, Registration, SERVICES_MAX, SignedClaim,
    SignedRegistration, Verdict,
};
use chatcore::text::{HostAddress, ServiceName};
use chatcore::wire::Addresses;

const DIRECTORY: PublicKey = PublicKey::new([0xD0; 32]);

fn generation(value: u64) -> Generation {
    Generation::new(value).unwrap()
}

fn host(number: u8) -> Host {
    let address: HostAddress = format!("chats://10.0.0.{number}:5000").parse().unwrap();
    Host {
        node: NodeId { key: PublicKey::new([number; 32]), boot: BootId::new([number; 16]) },
        addresses: Addresses::first_of([address]),
        tls_key: Some(KeyHash::new([number; 32])),
    }
}

fn claim(expect: u64, owner: u8, standby: Option<u8>) -> Claim {
    let (service, log_id) = (ServiceName::default(), LogId::new([9; 16]));
    let (owner, standby) = (host(owner), standby.map(host));
    Claim { service, log_id, expect: generation(expect), owner, standby }
}

/// Stands in for a signature.
fn sign(key: &PublicKey, message: &[u8]) -> Signature {
    let digest = blake3::hash(&[key.as_bytes(), message].concat());
    let halves: [&[u8]; 2] = [digest.as_bytes(), digest.as_bytes()];
    Signature::new(halves.concat().try_into().unwrap())
}

fn is_valid(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    sign(key, message) == *signature
}

fn signed(claim: Claim) -> SignedClaim {
    let signature = sign(&claim.owner.node.key, &claim.to_bytes(&DIRECTORY));
    SignedClaim { claim, signature }
}

fn proven(claim: Claim) -> ProvenClaim {
    signed(claim).prove(&DIRECTORY, is_valid).unwrap()
}

/// What a claim leads to in a generation.
fn applied(claim: &Claim, generation: Generation) -> Registration {
    let Claim { service, log_id, owner, standby, .. } = claim.clone();
    Registration { service, generation, log_id, owner, standby }
}

/// Judges a claim, and takes in what it leads to.
fn propose(registers: &mut Registers, claim: Claim) -> Verdict {
    let verdict = registers.judge(&proven(claim));
    if let Verdict::Apply(registration) = &verdict {
        let signature = sign(&DIRECTORY, &registration.to_bytes(&DIRECTORY));
        let registration = registration.clone();
        *registers = registers.with(SignedRegistration { registration, signature });
    }
    verdict
}

fn present(registers: &Registers) -> &Registration {
    &registers.get(&ServiceName::default()).unwrap().registration
}

#[track_caller]
fn assert_applied(registers: &mut Registers, claim: Claim) {
    let expected = applied(&claim, claim.expect.next());
    assert_eq!(propose(registers, claim), Verdict::Apply(expected.clone()));
    assert_eq!(*present(registers), expected);
}

/// A service of node 1, with node 2 as its standby, in generation 2.
fn pair() -> Registers {
    let mut registers = Registers::default();
    assert_applied(&mut registers, claim(0, 1, None));
    assert_applied(&mut registers, claim(1, 1, Some(2)));
    registers
}

#[test]
fn whoever_comes_first_founds_a_service_and_whoever_is_second_is_told_who_was() {
    let mut registers = Registers::default();
    assert_applied(&mut registers, claim(0, 1, None));
    assert_eq!(propose(&mut registers, claim(0, 2, None)), Verdict::Conflict);
    assert_eq!(*present(&registers), applied(&claim(0, 1, None), generation(1)));
}

#[test]
fn service_is_founded_alone_and_in_the_first_generation() {
    let mut registers = Registers::default();
    let denied = |fault| Verdict::Denied(fault);
    let verdict = propose(&mut registers, claim(0, 1, Some(2)));
    assert_eq!(verdict, denied(ClaimFault::Right));
    for expect in [1, 7, Generation::MAX.get()] {
        let verdict = propose(&mut registers, claim(expect, 1, None));
        assert_eq!(verdict, denied(ClaimFault::Unregistered));
    }
    assert_eq!(registers, Registers::default());
}

#[test]
fn m19_service_of_a_lost_directory_goes_on_only_after_the_generation_that_was_its_last() {
    let last =
        |value| Registers::new(BTreeMap::from([(ServiceName::default(), generation(value))]));
    let mut registers = last(7);
    // Who knows of less may have been replaced, and who is new knows of none.
    for expect in [0, 6, 8] {
        let verdict = propose(&mut registers, claim(expect, 1, None));
        assert_eq!(verdict, Verdict::Denied(ClaimFault::Unregistered));
    }
    assert_applied(&mut registers, claim(7, 2, None));
    assert_eq!(present(&registers).generation, generation(8));
    // From then on it is as any other.
    assert_eq!(propose(&mut registers, claim(7, 1, None)), Verdict::Conflict);
    assert_applied(&mut registers, claim(8, 2, Some(1)));
    let mut registers = last(Generation::MAX.get());
    let verdict = propose(&mut registers, claim(Generation::MAX.get(), 1, None));
    assert_eq!(verdict, Verdict::Denied(ClaimFault::Generation));
}

#[test]
fn owner_chooses_its_standby_and_standby_takes_over() {
    let mut registers = pair();
    assert_applied(&mut registers, claim(2, 2, Some(1)));
    assert_applied(&mut registers, claim(3, 1, None));
    assert_applied(&mut registers, claim(4, 1, Some(3)));
}

#[test]
fn owner_whose_addresses_change_claims_what_it_owns() {
    let mut registers = pair();
    let mut moved = claim(2, 1, Some(2));
    moved.owner.addresses = Addresses::default();
    assert_applied(&mut registers, moved);
    assert!(present(&registers).owner.addresses.is_empty());
}

#[test]
fn m18_neither_a_stranger_nor_a_node_without_its_journal_changes_anything() {
    let mut registers = pair();
    let before = registers.clone();
    let mut reborn = claim(2, 2, None);
    reborn.owner.node.boot = BootId::new([77; 16]);
    // A stranger, one that would be the standby of itself, one with the key of the standby alone, and a
    // standby that brings along one that may have nothing.
    let wrong = [
        claim(2, 3, None),
        claim(2, 3, Some(1)),
        claim(2, 1, Some(1)),
        reborn,
        claim(2, 2, Some(3)),
    ];
    for claim in wrong {
        assert_eq!(propose(&mut registers, claim), Verdict::Denied(ClaimFault::Right));
    }
    assert_eq!(registers, before);
}

#[test]
fn m7_claim_that_is_repeated_is_applied_once_and_told_so_while_it_holds() {
    let mut registers = pair();
    let again = claim(1, 1, Some(2));
    assert_eq!(propose(&mut registers, again.clone()), Verdict::Applied);
    assert_eq!(present(&registers).generation, generation(2));
    // As soon as something else holds, the present registration says so.
    assert_applied(&mut registers, claim(2, 2, None));
    assert_eq!(propose(&mut registers, again), Verdict::Conflict);
    // Another claim for the same generation is no repetition.
    assert_eq!(propose(&mut registers, claim(2, 2, Some(1))), Verdict::Conflict);
}

#[test]
fn claim_for_another_generation_is_a_conflict_whoever_makes_it() {
    let mut registers = pair();
    for expect in [0, 1, 3, Generation::MAX.get()] {
        for owner in [1, 2, 3] {
            assert_eq!(propose(&mut registers, claim(expect, owner, None)), Verdict::Conflict);
        }
    }
}

#[test]
fn claim_for_another_journal_is_denied() {
    let mut registers = pair();
    let other = Claim { log_id: LogId::new([8; 16]), ..claim(2, 1, None) };
    assert_eq!(propose(&mut registers, other), Verdict::Denied(ClaimFault::LogId));
}

#[test]
fn b11_last_generation_is_the_last() {
    let mut registers = Registers::default();
    let registration = applied(&claim(0, 1, Some(2)), Generation::MAX.previous());
    let signature = sign(&DIRECTORY, &registration.to_bytes(&DIRECTORY));
    registers = registers.with(SignedRegistration { registration, signature });
    let last = Generation::MAX.get();
    assert_applied(&mut registers, claim(last - 1, 2, None));
    for _ in 0..2 {
        let verdict = propose(&mut registers, claim(last, 2, None));
        assert_eq!(verdict, Verdict::Denied(ClaimFault::Generation));
    }
    assert_eq!(present(&registers).generation, Generation::MAX);
}

#[test]
fn services_are_bounded_and_those_that_there_are_go_on() {
    let mut registers = Registers::default();
    let of = |number: usize, expect| {
        let service = format!("chat-{number}").parse().unwrap();
        Claim { service, ..claim(expect, 1, None) }
    };
    for number in 0..SERVICES_MAX {
        assert!(matches!(propose(&mut registers, of(number, 0)), Verdict::Apply(_)));
    }
    let verdict = propose(&mut registers, of(SERVICES_MAX, 0));
    assert_eq!(verdict, Verdict::Denied(ClaimFault::Services));
    assert!(matches!(propose(&mut registers, of(0, 1)), Verdict::Apply(_)));
    assert_eq!(registers.iter().count(), SERVICES_MAX);
}

#[test]
fn claim_is_proven_by_its_owner_s_key_to_one_directory_and_as_it_was_signed() {
    let good = signed(claim(2, 1, Some(2)));
    assert_eq!(good.clone().prove(&DIRECTORY, is_valid).unwrap().claim(), &good.claim);
    assert_eq!(good.clone().prove(&PublicKey::new([1; 32]), is_valid), None, "a foreign directory");
    let mut others: Vec<Claim> = vec![good.claim.clone(); 8];
    others[0].service = "chat2".parse().unwrap();
    others[1].log_id = LogId::new([8; 16]);
    others[2].expect = generation(3);
    others[3].owner = host(3);
    others[4].owner.addresses = Addresses::default();
    others[5].owner.tls_key = None;
    others[6].standby = None;
    others[7].standby = Some(host(3));
    for claim in others {
        assert_eq!(SignedClaim { claim, ..good.clone() }.prove(&DIRECTORY, is_valid), None);
    }
}

#[test]
fn registration_is_of_the_directory_that_signed_it_and_of_no_other() {
    let registers = pair();
    let good = registers.get(&ServiceName::default()).unwrap().clone();
    assert!(good.is_of(&DIRECTORY, is_valid));
    assert!(!good.is_of(&PublicKey::new([1; 32]), is_valid));
    let mut forged = good;
    forged.registration.generation = generation(3);
    assert!(!forged.is_of(&DIRECTORY, is_valid));
}

#[test]
fn no_two_statements_have_the_same_bytes() {
    // What could run into each other: addresses, and what is there or not.
    let addresses =
        |texts: &[&str]| Addresses::first_of(texts.iter().map(|text| text.parse().unwrap()));
    let mut claims: Vec<Claim> = vec![claim(2, 1, None); 6];
    claims[0].owner.addresses = addresses(&["ab"]);
    claims[1].owner.addresses = addresses(&["a", "b"]);
    claims[2].owner.addresses = addresses(&["b", "a"]);
    claims[3].owner.tls_key = None;
    claims[4].standby = Some(host(1));
    claims[5].service = "ch".parse().unwrap();
    let mut all: Vec<Vec<u8>> = claims.iter().map(|it| it.to_bytes(&DIRECTORY)).collect();
    let registrations = claims.iter().map(|it| applied(it, it.expect));
    all.extend(registrations.map(|it| it.to_bytes(&DIRECTORY)));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
#[should_panic(expected = "a registration must follow the present one")]
fn registration_that_does_not_follow_is_a_bug_of_the_host() {
    let registers = pair();
    let present = registers.get(&ServiceName::default()).unwrap().clone();
    let _ = registers.with(present);
}

/// Many nodes that claim at random what they know to be the present generation or an older one. Claims
/// arrive late, twice and in any order, and some are of a boot that nobody knows.
struct Race {
    random: fastrand::Rng,
    registers: Registers,
    /// The generation that each node knows of.
    known: [u64; 8],
    under_way: Vec<Claim>,
    /// Verdicts by kind.
    applied: u64,
    again: u64,
    conflicts: u64,
    denied: u64,
}

impl Race {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            registers: Registers::default(),
            known: [0; 8],
            under_way: Vec::new(),
            applied: 0,
            again: 0,
            conflicts: 0,
            denied: 0,
        }
    }

    fn present(&self) -> Option<Registration> {
        self.registers.get(&ServiceName::default()).map(|it| it.registration.clone())
    }

    fn claim(&mut self) {
        let by = self.random.usize(..self.known.len());
        if self.random.u8(..4) == 0 {
            self.known[by] = self.present().map_or(0, |it| it.generation.get());
        }
        let standby = self.random.bool().then(|| self.random.u8(1..=8));
        let mut made = claim(self.known[by], u8::try_from(by + 1).unwrap(), standby);
        // One that nobody knows and that founded the register would be nobody's rival afterwards.
        if self.present().is_some() && self.random.u8(..10) == 0 {
            made.owner.node.boot = BootId::new([self.random.u8(..); 16]);
        }
        self.under_way.push(made);
    }

    fn arrive(&mut self) {
        let place = self.random.usize(..self.under_way.len());
        let arrives = self.under_way[place].clone();
        if self.random.u8(..3) > 0 {
            self.under_way.swap_remove(place);
        }
        let before = self.present();
        match propose(&mut self.registers, arrives.clone()) {
            Verdict::Apply(next) => return self.check(before.as_ref(), &arrives, &next),
            Verdict::Applied => self.again += 1,
            Verdict::Conflict => self.conflicts += 1,
            Verdict::Denied(_) => self.denied += 1,
        }
        assert_eq!(self.present(), before, "nothing changes");
    }

    fn check(&mut self, before: Option<&Registration>, claim: &Claim, next: &Registration) {
        self.applied += 1;
        assert_eq!(next.generation.get(), self.applied, "one winner for each");
        assert_eq!((&next.owner, &next.standby), (&claim.owner, &claim.standby));
        let Some(before) = before else { return };
        assert!(before.record().names(claim.owner.node), "{before:?} {claim:?}");
        assert_eq!(before.log_id, next.log_id);
    }
}

#[test]
fn of_nodes_that_race_one_wins_each_generation_and_none_without_the_right() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut race = Race::new(seed);
    for _ in 0..8 {
        race.claim();
    }
    for _ in 0..20_000 {
        race.claim();
        race.arrive();
        race.under_way.truncate(64);
    }
    let Race { applied, again, conflicts, denied, .. } = race;
    println!("{applied} applied, {again} repeated, {conflicts} conflicts, {denied} denied");
    assert!(applied > 100 && again > 10 && conflicts > 100 && denied > 100);
}
