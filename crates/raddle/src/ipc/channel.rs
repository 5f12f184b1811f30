//! Messages through shared memory: records in a ring, and a larger ring when one is full.
//!
//! Writers exclude each other by the lock of their side, readers by that of theirs; the two sides do not. A record is a
//! word that says how long the message is, and the message, padded to eight bytes. A message becomes one by the commit
//! of the writers' state, and is gone by the commit of the readers', both one store.
//!
//! An unbounded channel never makes a writer wait. Where a ring is full, the writer leaves a *jump* in it and goes on in
//! a larger one; readers follow the jump when they come to it, and give the memory of the ring they leave back. A
//! channel that has been quiet for a while goes back to a small ring in the same way. So a message is always in one ring
//! as a whole: streaming a long one in pieces would let a reader see part of it, and a writer that is killed halfway
//! would leave that part.
//!
//! What this does not do: it keeps no order between messages of different writers but that of their commits, and it is
//! not fair.
#![allow(unsafe_code)]

use super::apart::{LABEL, Parcel, Region, Stretches};
use super::bell::{Bell, HUNG_UP};
use super::memory::{Damaged, Header, Memory, RINGS, SMALLEST};
use super::process::Identity;
use super::ring::{Ring, WORD, padded};
use super::side::{DESCRIPTOR, Fields, Holding, SLEEPERS, Side, alive};
use crate::park::{Deadline, Outside, Parking, Stop, now};
use crate::trace::{Claim, Kind, Resource, Waker};
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a writer's numbers are.
mod written {
    /// The ring that is written to.
    pub(super) const RING: usize = 0;
    /// How many bytes have been written to it since it was entered.
    pub(super) const TAIL: usize = 1;
    /// How many messages there have been.
    pub(super) const COUNT: usize = 2;
    /// How many bytes these had.
    pub(super) const BYTES: usize = 3;
    /// How many bytes of the ring, from its start, have memory.
    pub(super) const WARM: usize = 4;
    /// The low byte says whether the channel is shut; the rest, how many messages in a row had room in a smaller ring.
    pub(super) const SHUT: usize = 5;
}

/// What a reader's numbers are.
mod read {
    pub(super) const RING: usize = 0;
    /// How many bytes have been read from it since it was entered.
    pub(super) const HEAD: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const BYTES: usize = 3;
    /// How many messages have been reported done.
    pub(super) const DONE: usize = 4;
    /// One more than the ring whose memory is being given back; 0 for none.
    pub(super) const LEAVING: usize = 5;
}

/// Low byte of `SHUT`: no more messages come; or none comes out either.
const DRAINING: u64 = 1;
const AT_ONCE: u64 = 2;
const QUIET_STEP: u64 = 256;

/// After so many small messages a channel goes back to a small ring.
const QUIET: u64 = 256;

/// A record's word: what it is, and a number. Zero is none of them.
const MESSAGE: u64 = 1 << 62;
/// Go on at the start of the ring with this number.
const JUMP: u64 = 2 << 62;
/// Go on so many bytes further in this ring.
const SKIP: u64 = 3 << 62;
const WHAT: u64 = 3 << 62;
/// Below the kind of a record, a message's word has its tag, and below that its length.
const TAG_SHIFT: u32 = 56;
const MOST_TAGS: u8 = 63;
/// What is in the ring only says where the message is.
const APART: u64 = 1 << (TAG_SHIFT - 1);
const LENGTH: u64 = APART - 1;

/// No channel gets as far as this within its ring, at any speed.
const FARTHEST: u64 = 1 << 62;

/// Memory is asked for in pieces of this size.
const PIECE: u64 = SMALLEST;

/// A message longer than this is checked against the memory that there is before room is made for it.
const DOUBTED: u64 = 1 << 20;

/// From this size on a message may be apart.
const LARGE: usize = 4 << 20;

/// From so many waiting bytes on, large messages may wait a little: see [`Channel::is_far_ahead`].
const FAR_AHEAD: u64 = 4 << 20;

/// How long a reader of a pipe sleeps before it looks whether a writer was killed before it could ring.
const LOOK_FOR_MESSAGE: u64 = 500_000_000;

/// How long a writer that waits for room sleeps before it looks whether anybody is left to read.
const LOOK_FOR_READER: u64 = 50_000_000;

/// Why a message was not sent.
#[derive(Debug)]
pub enum SendError {
    /// As many are waiting as may.
    Full,
    /// Another writer is at it.
    Busy,
    /// The channel is shut.
    Shut,
    /// Nobody is left to read.
    Gone,
    /// The shared memory is damaged, or there is no more.
    Failed(io::Error),
}

/// Why there is no message.
#[derive(Debug)]
pub enum RecvError {
    /// None is there.
    Empty,
    /// Another reader is at it.
    Busy,
    /// None will come: the channel is shut.
    Shut,
    /// None will come: nobody is left to write.
    Gone,
    /// The next one has this many bytes and this tag, and no room was given for it. It stays.
    NoRoom(usize, u8),
    /// The next one is apart, and is taken by [`try_recv_apart`](Channel::try_recv_apart). It stays.
    Apart,
    /// The shared memory is damaged.
    Failed(io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        SendError::Failed(error)
    }
}

impl From<io::Error> for RecvError {
    fn from(error: io::Error) -> Self {
        RecvError::Failed(error)
    }
}

impl From<Damaged> for SendError {
    fn from(error: Damaged) -> Self {
        SendError::Failed(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl From<Damaged> for RecvError {
    fn from(error: Damaged) -> Self {
        RecvError::Failed(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Bounds of a channel; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The most messages that may wait.
    pub items: u64,
    /// The most bytes that may wait. A longer message waits until it is alone.
    pub bytes: u64,
}

/// How a channel stands, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages waiting.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages sent and not reported done.
    pub unfinished: u64,
    /// Whether no more may be sent.
    pub shut: bool,
}

/// One direction of messages between processes.
#[derive(Debug)]
pub struct Channel {
    memory: Arc<Memory>,
    bell: Bell,
    limits: Limits,
    /// Somebody in this process waits for the descriptor by means of its own: it is kept exact.
    selected: AtomicBool,
    /// Whether a message may be sent to nobody: its sender knows of the end of the other party by other means.
    unheard: bool,
    /// Whether large messages are sent apart.
    apart: bool,
    /// How many that were not large have been sent since the last one.
    quiet: AtomicU64,
}

impl Resource for Channel {
    /// Other processes may end any wait.
    fn wakers(&self, _kind: Kind, _out: &mut Vec<Waker>) -> Claim {
        Claim::Unknown
    }
}

/// The next record, as a reader finds it.
enum Next {
    Nothing,
    Message(Record),
}

struct Record {
    ring: Ring,
    tag: u8,
    length: u64,
    is_apart: bool,
}

impl Channel {
    /// Opens one lane of a file that [`Memory::create`] made.
    ///
    /// # Errors
    /// `InvalidData` if it is not such a file; else of the operating system.
    pub fn open(file: Arc<OwnedFd>, lane: u64, bell: Bell) -> io::Result<Channel> {
        let memory = Arc::new(Memory::open(file, lane)?);
        let header = memory.header();
        let limits =
            Limits { items: header.items.load(Ordering::Relaxed), bytes: header.bytes.load(Ordering::Relaxed) };
        Ok(Channel {
            memory,
            bell,
            limits,
            selected: AtomicBool::new(false),
            unheard: false,
            apart: false,
            quiet: AtomicU64::new(0),
        })
    }

    /// Sends without a look at whether the other party is still there, which would be a system call for each message.
    #[must_use]
    pub fn unheard(mut self) -> Channel {
        self.unheard = true;
        self
    }

    /// Sends large messages apart from the rings (see `apart`): for a channel with one process on each side, which ends
    /// with either.
    #[must_use]
    pub fn apart(mut self) -> Channel {
        self.apart = true;
        self
    }

    /// The shared file.
    pub fn file(&self) -> &Arc<OwnedFd> {
        self.memory.file()
    }

    /// What tells the shared file from others: its inode.
    pub fn number(&self) -> u64 {
        self.memory.number()
    }

    /// Says what it is called, in all processes.
    pub fn set_name(&self, name: &str) {
        self.header().name.write(name);
    }

    /// What it is called.
    pub fn name(&self) -> Option<String> {
        self.header().name.read()
    }

    /// What rings for it.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Its bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn header(&self) -> &Header {
        self.memory.header()
    }

    fn hold<'a>(&self, side: &'a Side) -> Option<Holding<'a>> {
        let me = Identity::own();
        side.try_hold(me.pid, me.started)
    }

    fn wait_free(&self, side: &Side, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let me = Identity::own();
        side.wait_free(me.pid, me.started, parking, &alive, &|| self.ring_for(side))
    }

    /// Makes the descriptor readable: that is for changes of the writers' side.
    fn ring_for(&self, side: &Side) {
        if std::ptr::eq(side, &raw const self.header().writers) {
            self.bell.ring();
        }
    }

    fn state(side: &Side) -> Result<Fields, Damaged> {
        side.state().map(|(_, state)| state).ok_or(Damaged("its state never holds still"))
    }

    fn ring(&self, ring: u64) -> io::Result<Ring> {
        let ring = usize::try_from(ring)
            .ok()
            .filter(|ring| *ring < RINGS)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, Damaged("there is no such ring")))?;
        Ok(Ring { start: self.memory.ring(ring)?, size: Memory::ring_size(ring) })
    }

    /// How many bytes of a ring lie between the sides: all that is written, if the readers are elsewhere.
    fn used(ours: &Fields, theirs: &Fields, size: u64) -> Result<u64, Damaged> {
        let head = if theirs[read::RING] == ours[written::RING] { theirs[read::HEAD] } else { 0 };
        match ours[written::TAIL].checked_sub(head) {
            Some(used) if used <= size && used.is_multiple_of(WORD) && head.is_multiple_of(WORD) && head < FARTHEST => {
                Ok(used)
            }
            _ => Err(Damaged("a position outside of its ring")),
        }
    }

    // Writing

    /// Whether a message of this length may be sent as things stand.
    fn has_room(&self, ours: &Fields, theirs: &Fields, length: u64) -> Result<bool, Damaged> {
        let waiting = ours[written::COUNT].wrapping_sub(theirs[read::COUNT]);
        let bytes = ours[written::BYTES].wrapping_sub(theirs[read::BYTES]);
        if waiting > i64::MAX as u64 || bytes > i64::MAX as u64 {
            return Err(Damaged("more was read than written"));
        }
        let Limits { items, bytes: most } = self.limits;
        Ok((items == 0 || waiting < items) && (most == 0 || waiting == 0 || bytes.saturating_add(length) <= most))
    }

    /// Sends one message, made of these parts, if that is possible without waiting. The tag, a number below 64, is the
    /// caller's and comes with the message.
    ///
    /// Of a message that could not be sent, nothing is. O(its length); a system call if somebody waits for it, or if it
    /// needs memory.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send(&self, tag: u8, parts: &[&[u8]]) -> Result<(), SendError> {
        if self.apart && self.header().stretches.any_kept() && self.quiet.fetch_add(1, Ordering::Relaxed) > QUIET {
            Stretches::give_back(&self.memory);
        }
        self.send(tag, 0, parts)
    }

    /// Writes a message to where the reader will have it, if it is large and this channel does that: to be sent by
    /// [`try_send_parcel`](Self::try_send_parcel). `None` if it has to go through a ring.
    pub fn parcel(&self, parts: &[&[u8]]) -> Option<Parcel> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if !self.apart || length < LARGE {
            return None;
        }
        Parcel::write(&self.memory, parts)
    }

    /// As [`try_send`](Self::try_send), of a message that has been written. Can be tried again.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send_parcel(&self, tag: u8, parcel: &mut Parcel) -> Result<(), SendError> {
        self.send(tag, APART, &[&parcel.label()])?;
        parcel.is_sent();
        self.quiet.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn send(&self, tag: u8, flag: u64, parts: &[&[u8]]) -> Result<(), SendError> {
        if !self.unheard && self.bell.is_hung_up() {
            return Err(SendError::Gone);
        }
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let holding = self.hold(&self.header().writers).ok_or(SendError::Busy)?;
        let mut ours = holding.state();
        // The readers' state may be out of date by the time it is used. Then there is more room, not less.
        let theirs = Self::state(&self.header().readers)?;
        if ours[written::SHUT] % QUIET_STEP != 0 {
            return Err(SendError::Shut);
        }
        if !self.has_room(&ours, &theirs, length)? {
            return Err(SendError::Full);
        }
        let what = MESSAGE | flag | u64::from(tag & MOST_TAGS) << TAG_SHIFT;
        self.place(&mut ours, &theirs, what, parts, length)?;
        ours[written::COUNT] = ours[written::COUNT].wrapping_add(1);
        ours[written::BYTES] = ours[written::BYTES].wrapping_add(length);
        // Who selects the descriptor by means of its own must not miss it: it is rung before. Our own waiters can look
        // again, and are better woken when the message is there and the lock is free: see "Ringing late" in the README.
        let late = Cell::new(false);
        holding.announce(&|| if self.may_ring_late() { late.set(true) } else { self.bell.ring() });
        holding.commit(&ours);
        drop(holding);
        if late.get() {
            self.bell.ring();
        }
        Ok(())
    }

    fn may_ring_late(&self) -> bool {
        matches!(self.bell, Bell::Socket(_)) && self.header().selected.load(Ordering::SeqCst) == 0
    }

    /// Writes a message behind the tail, where no reader looks, and says in `ours` what to commit.
    fn place(
        &self,
        ours: &mut Fields,
        theirs: &Fields,
        what: u64,
        parts: &[&[u8]],
        length: u64,
    ) -> Result<(), SendError> {
        let too_long = || SendError::Failed(io::Error::from_raw_os_error(libc::EMSGSIZE));
        if length > 1 << 39 {
            return Err(too_long());
        }
        let need = WORD + padded(length);
        let mut ring = self.ring(ours[written::RING])?;
        let used = Self::used(ours, theirs, ring.size)?;
        let tail = ours[written::TAIL];
        let index = tail & (ring.size - 1);
        let empty = used == 0 && theirs[read::RING] == ours[written::RING];
        // The smallest ring in which a few such messages have room.
        let fitting = (0..RINGS).find(|at| Memory::ring_size(*at) >= 4 * need).unwrap_or(RINGS - 1) as u64;
        let quiet = if fitting < ours[written::RING] { (ours[written::SHUT] / QUIET_STEP).min(QUIET) + 1 } else { 0 };
        let target = if quiet > QUIET && empty && theirs[read::LEAVING] == 0 {
            Some(fitting)
        } else if used + need + WORD <= ring.size {
            None
        } else {
            // Rings between the sides are in use, and so is the one that a reader is about to leave.
            let in_use = |ring: u64| ring == theirs[read::RING] || ring + 1 == theirs[read::LEAVING];
            let mut larger = (ours[written::RING] + 1).max(fitting);
            while in_use(larger) {
                larger += 1;
            }
            if larger >= RINGS as u64 {
                return Err(too_long());
            }
            Some(larger)
        };
        let mut at = tail;
        match target {
            Some(next) => {
                ring.put_word(tail, JUMP | next);
                self.memory.provide(
                    next as usize,
                    0,
                    need.next_multiple_of(PIECE).min(Memory::ring_size(next as usize)),
                )?;
                ring = self.ring(next)?;
                at = 0;
                ours[written::RING] = next;
                ours[written::WARM] = need.next_multiple_of(PIECE).min(ring.size);
                ours[written::SHUT] %= QUIET_STEP;
            }
            None => {
                // An empty ring is begun again before it takes more memory. What is skipped counts as written until it has
                // been passed: so much that there would be no room for the next message is skipped only for a message
                // that is itself a good part of the ring, and worth more than the step to another ring it may cost.
                let skipped = ring.size - index;
                let cold = index + need > ours[written::WARM].min(ring.size);
                let worth = skipped <= ring.size / 2 || need >= (ring.size / 8).max(PIECE);
                if empty && cold && index >= need + WORD && worth {
                    ring.put_word(tail, SKIP | skipped);
                    at = tail + skipped;
                }
                let end = (at & (ring.size - 1)) + need;
                if end > ours[written::WARM] && ours[written::WARM] < ring.size {
                    let warm = if end >= ring.size { ring.size } else { end.next_multiple_of(PIECE).min(ring.size) };
                    self.memory.provide(ours[written::RING] as usize, ours[written::WARM], warm)?;
                    ours[written::WARM] = warm;
                }
                ours[written::SHUT] = ours[written::SHUT] % QUIET_STEP + quiet * QUIET_STEP;
            }
        }
        ring.put_word(at, what | length);
        let mut to = at + WORD;
        for part in parts {
            ring.write(to, part);
            to += part.len() as u64;
        }
        ours[written::TAIL] = at + need;
        Ok(())
    }

    /// Waits until a message of this length may perhaps be sent; who comes back tries.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_room(&self, length: usize, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let header = self.header();
        self.wait_free(&header.writers, parking)?;
        self.wait_word(&header.readers, &|| !self.is_full(length), &|| self.bell.is_hung_up(), parking)
    }

    /// Whether a message of this length has to wait for room.
    pub fn is_full(&self, length: usize) -> bool {
        let (Ok(ours), Ok(theirs)) = (Self::state(&self.header().writers), Self::state(&self.header().readers)) else {
            return false;
        };
        ours[written::SHUT] % QUIET_STEP == 0 && !self.has_room(&ours, &theirs, length as u64).unwrap_or(true)
    }

    /// Whether so much is waiting in a channel without a bound that a writer of large messages does better to let the
    /// readers catch up: memory that has just been read is quicker to write to than memory that is new.
    pub fn is_far_ahead(&self) -> bool {
        self.limits.bytes == 0 && self.statistics().is_ok_and(|now| now.bytes >= FAR_AHEAD)
    }

    /// Waits until the readers have caught up. To be given a deadline: there may be no reader.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_caught_up(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.wait_word(&self.header().readers, &|| !self.is_far_ahead(), &|| false, parking)
    }

    /// Waits until no more is waiting than the bound on bytes, which a single message may have gone beyond; or until
    /// nobody is left to read.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_within_bound(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.wait_word(&self.header().readers, &|| !self.is_beyond_bound(), &|| self.bell.is_hung_up(), parking)
    }

    /// Whether it is a message that has gone beyond the bound on bytes.
    pub fn is_beyond_bound(&self) -> bool {
        self.statistics().is_ok_and(|now| now.bytes > self.limits.bytes)
    }

    /// Waits for a change of a side that makes `look` true, on its word; and until `gone`, which is asked now and then.
    fn wait_word(
        &self,
        side: &Side,
        look: &dyn Fn() -> bool,
        gone: &dyn Fn() -> bool,
        parking: &mut Parking<'_>,
    ) -> Result<(), Stop> {
        let version = side.version();
        if look() || parking.spin(|| side.version() != version && look()) {
            return Ok(());
        }
        loop {
            let word = side.enlist(SLEEPERS);
            if side.is_held() {
                self.wait_free(side, parking)?;
                if look() {
                    return Ok(());
                }
                continue;
            }
            if look() || gone() {
                return Ok(());
            }
            let again = match self.bell {
                Bell::Event(_) => Deadline::NEVER,
                Bell::Socket(_) => Deadline::at(now() + LOOK_FOR_READER),
            };
            parking.park_outside(Outside::Word(side.event(), word), again)?;
        }
    }

    // Reading

    /// Follows jumps and skips to the next message, in `ours`.
    fn next(&self, ours: &mut Fields, theirs: &Fields) -> Result<Next, RecvError> {
        // Each step leaves a ring, or skips within one; there are not more than that in a row.
        for _ in 0..2 * RINGS {
            let ring = self.ring(ours[read::RING])?;
            let same = ours[read::RING] == theirs[written::RING];
            let head = ours[read::HEAD];
            if head >= FARTHEST || !head.is_multiple_of(WORD) {
                return Err(Damaged("a position outside of its ring").into());
            }
            let readable = if same { Self::used(theirs, ours, ring.size)? } else { ring.size };
            if readable == 0 {
                return Ok(Next::Nothing);
            }
            let word = ring.word(head);
            let number = word & !WHAT;
            match word & WHAT {
                MESSAGE => {
                    let (tag, is_apart) = ((number >> TAG_SHIFT) as u8, number & APART != 0);
                    let number = number & LENGTH;
                    let fits = number <= readable && WORD + padded(number) <= readable;
                    if !fits || (number > DOUBTED && number > self.memory.held()?) {
                        return Err(Damaged("a message that is longer than what was written").into());
                    }
                    if is_apart && number != LABEL as u64 {
                        return Err(Damaged("a large message that is nowhere").into());
                    }
                    return Ok(Next::Message(Record { ring, tag, length: number, is_apart }));
                }
                SKIP if number > 0 && number <= readable && number.is_multiple_of(WORD) => {
                    ours[read::HEAD] = head + number;
                }
                JUMP if !same && number < RINGS as u64 && number != ours[read::RING] => {
                    ours[read::LEAVING] = ours[read::RING] + 1;
                    ours[read::RING] = number;
                    ours[read::HEAD] = 0;
                }
                _ => return Err(Damaged("no record where one has to be").into()),
            }
        }
        Err(Damaged("jumps without end").into())
    }

    /// Takes the next message, if there is one, to where `room` says. That is asked with the length and the tag, while
    /// the readers' lock is held, and must be quick.
    ///
    /// # Errors
    /// [`RecvError`]; [`NoRoom`](RecvError::NoRoom) leaves the message where it is.
    ///
    /// # Safety
    /// Where `room` points to there is room for the length that it was asked with.
    pub unsafe fn try_recv(
        &self,
        room: impl FnOnce(usize, u8) -> Option<NonNull<u8>>,
    ) -> Result<(usize, u8), RecvError> {
        self.take(|record, at| {
            if record.is_apart {
                return Err(RecvError::Apart);
            }
            let tag = record.tag;
            let size =
                usize::try_from(record.length).map_err(|_| Damaged("a message that is too long for this machine"))?;
            let Some(to) = room(size, tag) else { return Err(RecvError::NoRoom(size, tag)) };
            // SAFETY: the caller's; `next` has checked that the message is inside the ring.
            unsafe { record.ring.read(at, to, size) };
            Ok((size, tag))
        })
    }

    /// Takes the next message, which is apart. Nothing is copied.
    ///
    /// # Errors
    /// [`RecvError`]; [`NoRoom`](RecvError::NoRoom) if it is in the ring.
    pub fn try_recv_apart(&self) -> Result<(Region, u8), RecvError> {
        self.take(|record, at| {
            if !record.is_apart {
                return Err(RecvError::NoRoom(usize::try_from(record.length).unwrap_or(usize::MAX), record.tag));
            }
            let mut label = [0; LABEL];
            // SAFETY: `next` has checked that the record is inside the ring and has this length.
            unsafe { record.ring.read(at, NonNull::from(&mut label).cast(), LABEL) };
            let region = Region::open(&self.memory, label)?;
            Ok((region, record.tag))
        })
    }

    /// Takes the next message out if `with` makes something of it; that is given the position of its bytes.
    fn take<R>(&self, with: impl FnOnce(&Record, u64) -> Result<R, RecvError>) -> Result<R, RecvError> {
        let header = self.header();
        let Some(holding) = self.hold(&header.readers) else { return Err(RecvError::Busy) };
        let theirs = Self::state(&header.writers)?;
        let mut ours = holding.state();
        let shut = theirs[written::SHUT] % QUIET_STEP;
        if shut == AT_ONCE {
            return Err(RecvError::Shut);
        }
        if ours[read::LEAVING] != 0 {
            self.leave(&holding, &mut ours)?;
        }
        let ring = ours[read::RING];
        let record = match self.next(&mut ours, &theirs)? {
            Next::Message(record) => record,
            // Otherwise a wait for a message and a look for one would take turns for ever.
            Next::Nothing if theirs[written::COUNT] != ours[read::COUNT] => {
                return Err(Damaged("messages that are counted and not there").into());
            }
            Next::Nothing => return Err(if shut == 0 { RecvError::Empty } else { RecvError::Shut }),
        };
        let result = with(&record, ours[read::HEAD] + WORD)?;
        let length = record.length;
        ours[read::HEAD] += WORD + padded(length);
        ours[read::COUNT] = ours[read::COUNT].wrapping_add(1);
        ours[read::BYTES] = ours[read::BYTES].wrapping_add(length);
        let left_a_ring = ours[read::RING] != ring;
        holding.announce(&|| ());
        holding.commit(&ours);
        if left_a_ring {
            self.leave(&holding, &mut ours)?;
        }
        drop(holding);
        if self.selected.load(Ordering::Relaxed) {
            self.settle();
        }
        Ok(result)
    }

    /// Gives the memory of the rings back: nobody sends or receives any more. What was apart is its receiver's.
    pub fn end(&self) {
        self.memory.give_all_back();
        Stretches::give_back(&self.memory);
    }

    /// Gives the memory of the ring that readers have left back. Writers keep away from it until that is committed.
    fn leave(&self, holding: &Holding<'_>, ours: &mut Fields) -> Result<(), RecvError> {
        let left = usize::try_from(ours[read::LEAVING] - 1).unwrap_or(RINGS);
        if left >= RINGS {
            return Err(Damaged("there is no such ring").into());
        }
        self.memory.give_back(left);
        ours[read::LEAVING] = 0;
        holding.commit(ours);
        Ok(())
    }

    /// Whether there is something to take, or nothing to wait for.
    pub fn is_ready(&self) -> bool {
        self.has_message().unwrap_or(true)
    }

    fn has_message(&self) -> Result<bool, Damaged> {
        let theirs = Self::state(&self.header().writers)?;
        let ours = Self::state(&self.header().readers)?;
        Ok(theirs[written::SHUT] % QUIET_STEP != 0 || theirs[written::COUNT] != ours[read::COUNT])
    }

    /// Waits until there may be a message; who comes back tries. At once if nobody is left to send one.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_message(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let header = self.header();
        self.wait_free(&header.readers, parking)?;
        if let Bell::Event(_) = self.bell {
            return self.wait_word(&header.writers, &|| self.is_ready(), &|| false, parking);
        }
        let version = header.writers.version();
        if parking.spin(|| header.writers.version() != version && self.is_ready()) {
            return Ok(());
        }
        let mut heard = false;
        loop {
            match self.try_arm(heard) {
                Some(true) => return Ok(()),
                Some(false) => {
                    let mut asked = [libc::pollfd { fd: self.bell.fd(), events: libc::POLLIN, revents: 0 }];
                    let look = Deadline::at(now() + LOOK_FOR_MESSAGE);
                    parking.park_outside(Outside::Descriptors(&mut asked), look)?;
                    if self.is_ready() || asked[0].revents & HUNG_UP != 0 {
                        return Ok(());
                    }
                    heard = asked[0].revents != 0;
                }
                None => self.wait_free(&header.writers, parking)?,
            }
        }
    }

    /// The descriptor is readable, or the next message will make it so: at every moment that no writer is at work. If
    /// nothing is there it is silenced first. `heard`: it was readable a moment ago. `None` if a writer is at work.
    fn try_arm(&self, heard: bool) -> Option<bool> {
        let side = &self.header().writers;
        let holding = self.hold(side)?;
        if self.is_ready() {
            return Some(true);
        }
        if heard || !side.descriptor_is_asked_for() {
            self.bell.silence();
            side.enlist(DESCRIPTOR);
        }
        drop(holding);
        Some(false)
    }

    /// For who waits for several descriptors: the next message will make this one readable, or there is one already
    /// (true). `heard`: it was readable a moment ago. None if a writer is at work; it is to be asked again soon.
    ///
    /// A writer that is killed may not ring any more. Whoever waits has to know of its death by other means.
    pub fn arm(&self, heard: bool) -> Option<bool> {
        self.try_arm(heard)
    }

    /// Frees what a process that has ended may have left locked.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn mend(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.wait_free(&self.header().readers, parking)?;
        self.wait_free(&self.header().writers, parking)
    }

    /// Leaves a number for whoever reads, beside the messages.
    pub fn request(&self, number: u64) {
        self.header().request.store(number, Ordering::SeqCst);
    }

    /// The number left last; 0 if none was.
    pub fn requested(&self) -> u64 {
        self.header().request.load(Ordering::SeqCst)
    }

    /// Keeps the descriptor exact from now on in this process: readable while there is something to take.
    pub fn select(&self) {
        self.selected.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the load in `may_ring_late`. Writers ring in time from the next message on.
        self.header().selected.store(1, Ordering::SeqCst);
        self.settle();
    }

    /// The channel may be empty: the descriptor should not be readable. If a writer is at work, it soon is again.
    fn settle(&self) {
        if !self.is_ready() {
            let _ = self.try_arm(false);
        }
    }

    /// Nothing was there to take: what the descriptor said was out of date.
    pub fn nothing_there(&self) {
        if self.selected.load(Ordering::Relaxed) {
            self.settle();
        }
    }

    /// Whether the other party has gone, and what it has sent has been taken.
    pub fn is_at_end(&self) -> bool {
        // In this order: what it sent before it went is there by now.
        self.bell.is_hung_up() && !self.is_ready()
    }

    /// Whether nobody is left to read.
    pub fn has_no_reader(&self) -> bool {
        self.bell.is_hung_up()
    }

    // Tasks and the end

    /// Reports one message done. False if all have been.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_done(&self) -> Result<bool, RecvError> {
        let header = self.header();
        let Some(holding) = self.hold(&header.readers) else { return Err(RecvError::Busy) };
        let theirs = Self::state(&header.writers)?;
        let mut ours = holding.state();
        if Self::unfinished(&theirs, &ours) == 0 {
            return Ok(false);
        }
        ours[read::DONE] = ours[read::DONE].wrapping_add(1);
        holding.announce(&|| ());
        holding.commit(&ours);
        Ok(true)
    }

    /// Waits until nobody reads, at least for a moment: after [`try_done`](Self::try_done) was too busy.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_readers(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        self.wait_free(&self.header().readers, parking)
    }

    /// Messages sent and not done. What an immediate end threw away needs not be done.
    fn unfinished(theirs: &Fields, ours: &Fields) -> u64 {
        let sent =
            if theirs[written::SHUT] % QUIET_STEP == AT_ONCE { ours[read::COUNT] } else { theirs[written::COUNT] };
        sent.saturating_sub(ours[read::DONE])
    }

    /// Waits until every message sent is reported done.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn wait_done(&self, parking: &mut Parking<'_>) -> Result<(), Stop> {
        // Who comes back asks again, and is told what is damaged.
        self.wait_word(&self.header().readers, &|| !self.is_unfinished(), &|| false, parking)
    }

    /// Whether some message has not been reported done.
    pub fn is_unfinished(&self) -> bool {
        self.statistics().is_ok_and(|now| now.unfinished > 0)
    }

    /// Shuts the channel: sends fail from now on, and receives as soon as nothing is left; `immediate`: at once.
    ///
    /// # Errors
    /// [`Stop`]. It is safe to try again.
    pub fn shut(&self, immediate: bool, parking: &mut Parking<'_>) -> Result<(), Stop> {
        let header = self.header();
        loop {
            // Readers' lock first: nobody takes the two in the other order.
            let Some(readers) = self.hold(&header.readers) else {
                self.wait_free(&header.readers, parking)?;
                continue;
            };
            let Some(writers) = self.hold(&header.writers) else {
                drop(readers);
                self.wait_free(&header.writers, parking)?;
                continue;
            };
            let mut state = writers.state();
            let shut = (state[written::SHUT] % QUIET_STEP).max(if immediate { AT_ONCE } else { DRAINING });
            state[written::SHUT] = state[written::SHUT] - state[written::SHUT] % QUIET_STEP + shut;
            // Both are woken before the commit, and wait for the locks: see the README.
            readers.announce(&|| ());
            writers.announce(&|| self.bell.ring());
            writers.commit(&state);
            return Ok(());
        }
    }

    /// How it stands.
    ///
    /// # Errors
    /// `InvalidData` if the shared memory is damaged.
    pub fn statistics(&self) -> Result<Statistics, Damaged> {
        let ours = Self::state(&self.header().readers)?;
        let theirs = Self::state(&self.header().writers)?;
        let shut = theirs[written::SHUT] % QUIET_STEP;
        let left = |written: u64, read: u64| {
            if shut == AT_ONCE { 0 } else { written.saturating_sub(read) }
        };
        Ok(Statistics {
            items: left(theirs[written::COUNT], ours[read::COUNT]),
            bytes: left(theirs[written::BYTES], ours[read::BYTES]),
            unfinished: Self::unfinished(&theirs, &ours),
            shut: shut != 0,
        })
    }
}
