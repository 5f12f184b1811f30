//! Channels between processes: against a model, with damaged memory, and with processes that are killed.
#![cfg(not(raddle_loom))]
#![allow(unsafe_code, reason = "processes are forked and memory is damaged on purpose")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "system calls on what the tests have just made")]
#![allow(clippy::print_stdout, reason = "seeds are printed")]

use proptest::prelude::*;
use raddle::ipc::{Bell, Channel, Limits, Memory, RecvError, SendError};
use raddle::park::{Alone, Deadline, Parking};
use raddle::trace::Kind;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(limits: Limits) -> Channel {
    let file = Arc::new(Memory::create(1, limits.items, limits.bytes).unwrap());
    Channel::open(file, 0, Bell::Event(Arc::new(Bell::event().unwrap()))).unwrap()
}

fn again(channel: &Channel) -> Channel {
    Channel::open(Arc::clone(channel.file()), 0, channel.bell().clone()).unwrap()
}

fn send(channel: &Channel, message: &[u8]) -> Result<(), SendError> {
    let middle = message.len() / 3;
    channel.try_send((message.len() % 64) as u8, &[&message[..middle], &message[middle..]])
}

fn receive(channel: &Channel) -> Result<Vec<u8>, RecvError> {
    let size = match unsafe { channel.try_recv(|_, _| None) } {
        Err(RecvError::NoRoom(size, _)) => size,
        Err(error) => return Err(error),
        Ok(_) => unreachable!("no room was given"),
    };
    let mut buffer: Vec<u8> = Vec::with_capacity(size);
    let room = NonNull::new(buffer.as_mut_ptr()).unwrap();
    unsafe {
        let (received, tag) = channel.try_recv(|length, _| (length <= size).then_some(room))?;
        buffer.set_len(received);
        assert!(tag < 64);
    }
    Ok(buffer)
}

fn is_readable(channel: &Channel) -> bool {
    let mut asked = libc::pollfd { fd: channel.bell().fd(), events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&mut asked, 1, 0) == 1 }
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Receive,
    /// So many in a row.
    Burst(usize, usize),
    Drain,
    Done,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0usize..200, 3 => 0usize..70_000, 1 => 0usize..3_000_000];
    let step = prop_oneof![
        6 => size.prop_map(Step::Send),
        6 => Just(Step::Receive),
        1 => (1usize..600, 0usize..2000).prop_map(|(count, size)| Step::Burst(count, size)),
        1 => Just(Step::Drain),
        1 => Just(Step::Done),
    ];
    prop::collection::vec(step, 1..120)
}

/// A message that says of each byte which message it is of and where it stands.
fn message(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(17) ^ (at >> 8)) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_channel_is_a_line_of_messages(
        steps in steps(),
        items in prop_oneof![Just(0u64), 1u64..20],
        bytes in prop_oneof![Just(0u64), 1u64..100_000],
        selected in any::<bool>(),
    ) {
        let channel = open(Limits { items, bytes });
        let reader = again(&channel);
        if selected {
            reader.select();
        }
        let mut line: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut sent, mut done) = (0, 0);
        let put = |line: &mut VecDeque<Vec<u8>>, sent: &mut usize, size: usize| {
            let waiting: u64 = line.iter().map(|message| message.len() as u64).sum();
            let room = (items == 0 || (line.len() as u64) < items)
                && (bytes == 0 || line.is_empty() || waiting + size as u64 <= bytes);
            let new = message(*sent, size);
            match send(&channel, &new) {
                Ok(()) => {
                    prop_assert!(room);
                    line.push_back(new);
                    *sent += 1;
                }
                Err(SendError::Full) => prop_assert!(!room),
                Err(error) => prop_assert!(false, "{error:?}"),
            }
            Ok(())
        };
        let take = |line: &mut VecDeque<Vec<u8>>| {
            match (receive(&reader), line.pop_front()) {
                (Ok(found), Some(expected)) => prop_assert!(found == expected),
                (Err(RecvError::Empty), None) => reader.nothing_there(),
                (found, expected) => prop_assert!(false, "{found:?} {:?}", expected.is_some()),
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Send(size) => put(&mut line, &mut sent, size)?,
                Step::Receive => take(&mut line)?,
                Step::Burst(count, size) => for _ in 0..count { put(&mut line, &mut sent, size)? },
                Step::Drain => while !line.is_empty() { take(&mut line)? },
                Step::Done => {
                    prop_assert_eq!(reader.try_done().unwrap(), done < sent);
                    done = (done + 1).min(sent);
                }
            }
            let now = channel.statistics().unwrap();
            prop_assert_eq!(now.items, line.len() as u64);
            prop_assert_eq!(now.bytes, line.iter().map(|message| message.len() as u64).sum::<u64>());
            prop_assert_eq!(now.unfinished, (sent - done) as u64);
            prop_assert_eq!(reader.is_ready(), !line.is_empty());
            if selected {
                prop_assert_eq!(is_readable(&reader), !line.is_empty());
            } else if !line.is_empty() {
                prop_assert!(is_readable(&reader));
            }
        }
        while !line.is_empty() { take(&mut line)? }
        take(&mut line)?;
    }

    /// Whatever another process writes to the shared memory: an answer or an error, at once.
    #[test]
    fn damage_is_an_error(
        seed in any::<u64>(),
        hits in prop::collection::vec((0u64..200_000, any::<u64>(), 0u8..4), 1..12),
        rounds in 1usize..20,
    ) {
        let channel = open(Limits::default());
        let mut map = MapOfAll::of(&channel);
        for round in 0..rounds {
            let _ = send(&channel, &message(round, (seed as usize).wrapping_mul(round + 1) % 60_000));
        }
        map.refresh(&channel);
        let start = Instant::now();
        for (number, (place, value, how)) in hits.into_iter().enumerate() {
            map.hit(place, value, how);
            for _ in 0..4 {
                let _ = receive(&channel).map(|found| assert!(found.len() < 1 << 30));
                let _ = send(&channel, &message(number, 1000));
                let _ = channel.try_done();
                let _ = channel.statistics();
                channel.is_ready();
                channel.select();
                let limit = Deadline::after(Duration::from_millis(1));
                let mut parking = Parking::new(Kind::Receive, &channel, 0, limit, &Alone);
                let _ = channel.wait_message(&mut parking);
            }
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Each word of the header is wrong once: whoever receives and waits in turn comes to an end.
#[test]
fn no_damage_makes_a_reader_turn_in_circles() {
    for word in 0..640 / 8 {
        for value in [1u64, u64::MAX, 1 << 40] {
            let channel = open(Limits::default());
            send(&channel, b"one").unwrap();
            send(&channel, b"two").unwrap();
            let map = MapOfAll::of(&channel);
            unsafe {
                let place = map.start.cast::<u64>().add(word);
                place.write(place.read().wrapping_add(value));
            }
            let mut turns = 0;
            loop {
                match receive(&channel) {
                    Ok(_) | Err(RecvError::NoRoom(..)) => {}
                    Err(RecvError::Empty | RecvError::Busy) => {
                        let limit = Deadline::after(Duration::from_millis(5));
                        let mut parking = Parking::new(Kind::Receive, &channel, 0, limit, &Alone);
                        if channel.wait_message(&mut parking).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
                turns += 1;
                assert!(turns < 1000, "word {word} + {value}");
            }
        }
    }
}

/// The whole file, as a broken process has it.
struct MapOfAll {
    start: *mut u8,
    size: usize,
    fd: i32,
}

impl MapOfAll {
    fn of(channel: &Channel) -> Self {
        let mut map = Self { start: std::ptr::null_mut(), size: 0, fd: channel.file().as_raw_fd() };
        map.refresh(channel);
        map
    }

    fn refresh(&mut self, _channel: &Channel) {
        unsafe {
            if self.size > 0 {
                libc::munmap(self.start.cast(), self.size);
            }
            let mut found: libc::stat = std::mem::zeroed();
            assert_eq!(libc::fstat(self.fd, &mut found), 0);
            self.size = found.st_size as usize;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            self.start = libc::mmap(std::ptr::null_mut(), self.size, access, libc::MAP_SHARED, self.fd, 0).cast();
        }
    }

    fn hit(&mut self, place: u64, value: u64, how: u8) {
        // Most hits are on the header, where they matter.
        let at = if how == 0 { place as usize % self.size } else { place as usize % 640 } & !7;
        unsafe {
            let word = self.start.add(at).cast::<u64>();
            match how {
                1 => *word = value % 100_000,
                2 => *word ^= 1 << (value % 64),
                _ => *word = value,
            }
        }
    }
}

impl Drop for MapOfAll {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.start.cast(), self.size) };
    }
}

#[test]
fn memory_is_given_back_and_used_again() {
    let channel = open(Limits::default());
    let held = || {
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { libc::fstat(channel.file().as_raw_fd(), &mut found) }, 0);
        found.st_blocks as u64 * 512
    };
    let large = message(1, 8 << 20);
    for _ in 0..20 {
        send(&channel, &large).unwrap();
    }
    assert!(held() >= 160 << 20);
    for _ in 0..20 {
        assert!(receive(&channel).unwrap() == large);
    }
    for _ in 0..600 {
        send(&channel, b"small").unwrap();
        receive(&channel).unwrap();
    }
    assert!(held() < 1 << 20, "{}", held());
    // One large message at a time takes the memory of two.
    for _ in 0..50 {
        send(&channel, &large).unwrap();
        receive(&channel).unwrap();
    }
    assert!(held() < 20 << 20, "{}", held());
}

#[test]
fn an_end_lets_what_is_there_be_read_unless_it_is_immediate() {
    let channel = open(Limits { items: 2, bytes: 0 });
    let end = |immediate| {
        let mut parking = Parking::new(Kind::Send, &channel, 0, Deadline::NEVER, &Alone);
        channel.shut(immediate, &mut parking).unwrap();
    };
    send(&channel, b"one").unwrap();
    send(&channel, b"two").unwrap();
    end(false);
    assert!(matches!(send(&channel, b"three"), Err(SendError::Shut)));
    assert_eq!(receive(&channel).unwrap(), b"one");
    end(true);
    assert!(matches!(receive(&channel), Err(RecvError::Shut)));
    let now = channel.statistics().unwrap();
    assert_eq!((now.items, now.unfinished, now.shut), (0, 1, true));
    assert!(channel.try_done().unwrap());
    assert!(!channel.try_done().unwrap());
    assert!(is_readable(&channel));
}

#[test]
fn a_limit_on_memory_is_an_error_and_costs_one_message() {
    let channel = open(Limits::default());
    send(&channel, b"before").unwrap();
    let pid = fork(|| {
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
        let refused = matches!(send(&channel, &message(0, 4 << 20)), Err(SendError::Failed(error))
            if error.raw_os_error() == Some(libc::EFBIG));
        send(&channel, b"after").is_ok() && refused
    });
    assert!(reap(pid));
    assert_eq!(receive(&channel).unwrap(), b"before");
    assert_eq!(receive(&channel).unwrap(), b"after");
}

// Processes that are killed

fn fork(child: impl FnOnce() -> bool) -> i32 {
    match unsafe { libc::fork() } {
        0 => {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            unsafe { libc::_exit(i32::from(!fine)) }
        }
        pid => pid,
    }
}

fn reap(pid: i32) -> bool {
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn kill(pid: i32) {
    unsafe { libc::kill(pid, libc::SIGKILL) };
    reap(pid);
}

/// Sends `from, number` with a body that both decide, until killed.
fn write_for_ever(channel: &Channel, from: u32, longest: usize) -> bool {
    for number in 0u32.. {
        let size = (number as usize).wrapping_mul(2_654_435_761) % longest;
        let mut text = [from.to_le_bytes(), number.to_le_bytes()].concat();
        text.extend(message((from ^ number) as usize, size));
        loop {
            match channel.try_send((text.len() % 64) as u8, &[&text]) {
                Ok(()) => break,
                Err(SendError::Full | SendError::Busy) => {
                    let mut parking = Parking::new(Kind::Send, channel, 0, Deadline::NEVER, &Alone);
                    channel.wait_room(text.len(), &mut parking).unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    true
}

fn read_one(channel: &Channel, limit: Duration) -> Option<Vec<u8>> {
    let end = Deadline::after(limit);
    loop {
        match receive(channel) {
            Ok(found) => return Some(found),
            Err(RecvError::Empty | RecvError::Busy | RecvError::NoRoom(..)) => {
                let mut parking = Parking::new(Kind::Receive, channel, 0, end, &Alone);
                channel.wait_message(&mut parking).ok()?;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn check(text: &[u8]) -> (u32, u32) {
    let from = u32::from_le_bytes(text[..4].try_into().unwrap());
    let number = u32::from_le_bytes(text[4..8].try_into().unwrap());
    assert!(text[8..] == message((from ^ number) as usize, text.len() - 8), "a message in pieces");
    (from, number)
}

fn seed() -> u64 {
    let seed = std::env::var("RADDLE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ raddle::park::now());
    println!("RADDLE_SEED={seed}");
    seed
}

/// Steps of a generator that is good enough to spread instants.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn kills() -> u32 {
    std::env::var("RADDLE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

/// Writers are killed at random instants. Each writer's messages come whole, in order, without gaps.
#[test]
fn a_killed_writer_costs_at_most_its_last_message() {
    let mut state = seed() | 1;
    let channel = open(Limits { items: 50, bytes: 0 });
    let mut last = std::collections::HashMap::<u32, u32>::new();
    for round in 0..kills() {
        let longest = if round % 4 == 0 { 200_000 } else { 300 };
        let writers: Vec<i32> = (0..2).map(|at| fork(|| write_for_ever(&channel, round * 2 + at, longest))).collect();
        let end = Instant::now() + Duration::from_micros(random(&mut state) % 3000);
        let mut take = |limit| {
            let text = read_one(&channel, limit)?;
            let (from, number) = check(&text);
            let expected = last.get(&from).map_or(0, |last| last + 1);
            assert_eq!(number, expected, "messages of {from}");
            last.insert(from, number);
            Some(())
        };
        while Instant::now() < end {
            take(Duration::from_micros(200));
        }
        for writer in writers {
            kill(writer);
        }
        while take(Duration::from_millis(1)).is_some() {}
        send(&channel, &[u32::MAX.to_le_bytes(), round.to_le_bytes()].concat())
            .or_else(|error| match error {
                SendError::Busy => {
                    let mut parking = Parking::new(Kind::Send, &channel, 0, Deadline::NEVER, &Alone);
                    channel.wait_room(8, &mut parking).unwrap();
                    send(&channel, &[u32::MAX.to_le_bytes(), round.to_le_bytes()].concat())
                }
                error => Err(error),
            })
            .unwrap();
        take(Duration::from_secs(5)).expect("the channel works on");
    }
}

/// Readers are killed at random instants. No message comes twice, and each reader costs at most the one it was reading.
#[test]
fn a_killed_reader_costs_at_most_the_message_it_was_reading() {
    let mut state = seed() | 1;
    let channel = open(Limits { items: 64, bytes: 0 });
    let seen = open(Limits::default());
    let mut killed = 0u64;
    let mut sent = 0u32;
    let mut alone = Vec::new();
    for _ in 0..kills() {
        let readers: Vec<i32> = (0..2)
            .map(|_| {
                fork(|| {
                    loop {
                        let text = read_one(&channel, Duration::from_secs(60)).unwrap();
                        // Noted in one step: what is not noted counts as lost with the reader.
                        while let Err(SendError::Busy) = seen.try_send(4, &[&check(&text).1.to_le_bytes()]) {}
                    }
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_micros(random(&mut state) % 2500);
        while Instant::now() < end {
            let size = if sent.is_multiple_of(50) { 100_000 } else { 100 };
            let mut text = [0u32.to_le_bytes(), sent.to_le_bytes()].concat();
            text.extend(message(sent as usize, size));
            match channel.try_send((text.len() % 64) as u8, &[&text]) {
                Ok(()) => sent += 1,
                Err(SendError::Full | SendError::Busy) => {
                    let limit = Deadline::after(Duration::from_micros(300));
                    let mut parking = Parking::new(Kind::Send, &channel, 0, limit, &Alone);
                    let _ = channel.wait_room(text.len(), &mut parking);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        for reader in readers {
            kill(reader);
            killed += 1;
        }
        // What the readers left is still there.
        while let Some(text) = read_one(&channel, Duration::from_millis(1)) {
            alone.push(check(&text).1);
        }
    }
    let mut all = alone;
    while let Some(text) = read_one(&seen, Duration::from_millis(5)) {
        all.push(u32::from_le_bytes(text[..4].try_into().unwrap()));
    }
    let count = all.len() as u64;
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len() as u64, count, "a message came twice");
    assert!(count <= u64::from(sent) && u64::from(sent) - count <= killed, "{count} of {sent}, {killed} killed");
}

#[test]
fn a_stopped_holder_delays_and_a_deadline_holds() {
    let channel = open(Limits::default());
    let writer = fork(|| write_for_ever(&channel, 1, 2_000_000));
    std::thread::sleep(Duration::from_millis(20));
    unsafe { libc::kill(writer, libc::SIGSTOP) };
    let start = Instant::now();
    while read_one(&channel, Duration::from_millis(50)).is_some() {}
    assert!(start.elapsed() < Duration::from_secs(10));
    kill(writer);
    while read_one(&channel, Duration::from_millis(1)).is_some() {}
    let mut parking = Parking::new(Kind::Send, &channel, 0, Deadline::NEVER, &Alone);
    channel.wait_room(1, &mut parking).unwrap();
    send(&channel, b"on").unwrap();
    assert_eq!(receive(&channel).unwrap(), b"on");
}

// Two parties

fn pair() -> (Channel, Channel) {
    let mut fds = [0i32; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
    let [a, b] = fds.map(|fd| Bell::Socket(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })));
    let file = Arc::new(Memory::create(2, 0, 1 << 20).unwrap());
    (Channel::open(Arc::clone(&file), 0, a).unwrap(), Channel::open(file, 0, b).unwrap())
}

#[test]
fn a_hang_up_ends_the_wait_after_the_last_message() {
    let (reader, writer) = pair();
    let pid = fork(|| {
        let text = [0u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        send(&writer, &text).is_ok()
    });
    drop(writer);
    assert_eq!(read_one(&reader, Duration::from_secs(10)).unwrap().len(), 8);
    assert!(reap(pid));
    let mut parking = Parking::new(Kind::Receive, &reader, 0, Deadline::NEVER, &Alone);
    reader.wait_message(&mut parking).unwrap();
    assert!(reader.is_at_end());
}

#[test]
fn a_sleeper_on_a_descriptor_is_woken_by_each_message() {
    let (reader, writer) = pair();
    let pid = fork(|| {
        (0..2000u32).all(|number| {
            let text = [7u32.to_le_bytes(), number.to_le_bytes()].concat();
            if number % 64 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            send(&writer, &text).is_ok()
        })
    });
    for number in 0..2000u32 {
        let text = read_one(&reader, Duration::from_secs(10)).expect("a message");
        assert_eq!(u32::from_le_bytes(text[4..8].try_into().unwrap()), number);
    }
    assert!(reap(pid));
}

#[test]
fn a_writer_without_reader_is_told() {
    let (reader, writer) = pair();
    drop(reader);
    assert!(matches!(send(&writer, b"x"), Err(SendError::Gone)));
}

#[test]
fn a_tag_comes_with_its_message() {
    let channel = open(Limits::default());
    for tag in 0..64u8 {
        channel.try_send(tag, &[&[tag]]).unwrap();
        let mut byte = 0u8;
        let received = unsafe { channel.try_recv(|_, _| Some(NonNull::from(&mut byte))) };
        assert_eq!((received.unwrap(), byte), ((1, tag), tag));
    }
}
