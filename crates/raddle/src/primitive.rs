//! The only door to atomics, words that threads sleep on, thread identity and the spin-guarded cell.
//!
//! Everything that a model checker has to see comes from here, so that loom can slip in
//! underneath: build with `RUSTFLAGS="--cfg raddle_loom"`. Under loom a [`Futex`] is a word with a
//! mutex and a condition variable of the model, whose check and sleep are one step, as the kernel's are,
//! and [`AtomicU32`] and [`AtomicI64`] have the sequential consistency that loom's accesses lack.
#![allow(unsafe_code)]

#[cfg(not(raddle_loom))]
pub use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(raddle_loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(not(raddle_loom))]
pub use real::*;

#[cfg(raddle_loom)]
pub use modelled::*;

/// `const fn` outside the model; loom's atomics cannot be made in a constant.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(raddle_loom))]
        $(#[$meta])*
        $vis const fn $($rest)*
        #[cfg(raddle_loom)]
        $(#[$meta])*
        $vis fn $($rest)*
    };
}
pub(crate) use const_unless_loom;

#[cfg(not(raddle_loom))]
mod real {
    use super::{AtomicBool, AtomicU32, Ordering};
    use std::cell::UnsafeCell;
    use std::ops::{Deref, DerefMut};

    /// A 32-bit word that threads can sleep on. Dereferences to its atomic.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Futex(AtomicU32);

    impl Futex {
        /// A word with this value and nobody asleep on it.
        pub const fn new(value: u32) -> Self {
            Self(AtomicU32::new(value))
        }

        /// Wakes up to this many threads of this process that sleep on it; they are told nothing.
        pub(crate) fn wake(&self, count: u32) {
            let word: *const AtomicU32 = &raw const self.0;
            // SAFETY: FUTEX_WAKE only uses the address as a key and reads nothing through it.
            unsafe { libc::syscall(libc::SYS_futex, word, FUTEX_WAKE_PRIVATE, count.min(i32::MAX as u32)) };
        }
    }

    const FUTEX_WAKE_PRIVATE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

    impl Deref for Futex {
        type Target = AtomicU32;
        #[inline]
        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    /// What the calling thread is called in owner words: the value of `pthread_self()`, never 0.
    ///
    /// It is also what Python's `threading.get_ident()` returns. A later thread may have it again.
    #[inline]
    pub fn thread_token() -> usize {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
        {
            // `pthread_self()` of glibc is this load, but a call through two tables; a test compares them.
            let token: usize;
            // SAFETY: by the ABI, `fs:0` is the thread pointer, which holds its own address; the load changes
            // nothing. glibc's `pthread_t` is that address.
            unsafe {
                std::arch::asm!("mov {}, fs:0", out(reg) token, options(pure, readonly, nostack, preserves_flags));
            }
            token
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
        // SAFETY: pthread_self has no preconditions and cannot fail.
        unsafe {
            libc::pthread_self() as usize
        }
    }

    /// The kernel's number for the calling thread.
    pub(crate) fn thread_number() -> i32 {
        // SAFETY: no preconditions, cannot fail.
        unsafe { libc::gettid() }
    }

    /// Whether the thread of this process with this number has vanished from the kernel's list.
    pub(crate) fn thread_is_gone(number: i32) -> bool {
        // SAFETY: signal 0 is none; only whether the thread exists is asked.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) != 0 }
    }

    /// The kernel's numbers for all threads of this process.
    ///
    /// # Errors
    /// The kernel's list cannot be read.
    pub(crate) fn thread_numbers() -> std::io::Result<Vec<i32>> {
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
        let entries = std::fs::read_dir("/proc/self/task")?;
        entries
            .map(|entry| entry.and_then(|entry| number(entry).ok_or(std::io::ErrorKind::InvalidData.into())))
            .collect()
    }

    /// How often the thread of this process with this number has gone to sleep, if it sleeps where only a thread of
    /// this process can wake it: on a private futex, without a time limit. `None` if not, and where that cannot be told.
    ///
    /// If two calls give the same, it has slept all the time in between.
    pub(crate) fn sleeps_within(number: i32) -> Option<u64> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/task/{number}/{file}")).ok();
        let hex = |field: &str| i64::from_str_radix(field.strip_prefix("0x")?, 16).ok();
        let call = read("syscall")?;
        // The call's number, and its arguments: word, operation, value, time limit.
        let fields: Vec<_> = call.split_ascii_whitespace().take(5).collect();
        let &[name, _, operation, _, limit] = fields.as_slice() else { return None };
        let operation = hex(operation)? as libc::c_int & !libc::FUTEX_CLOCK_REALTIME;
        let waits = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].map(|wait| wait | libc::FUTEX_PRIVATE_FLAG);
        if name.parse() != Ok(libc::SYS_futex) || !waits.contains(&operation) || hex(limit)? != 0 {
            return None;
        }
        let status = read("status")?;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        switches.trim().parse().ok()
    }

    #[cfg(test)]
    #[test]
    fn the_token_is_what_pthread_self_says() {
        let check = || {
            // SAFETY: pthread_self has no preconditions and cannot fail.
            assert_eq!(thread_token(), unsafe { libc::pthread_self() as usize });
        };
        check();
        std::thread::spawn(check).join().unwrap();
    }

    /// Lets another runnable thread have this core.
    #[inline]
    pub fn yield_now() {
        std::thread::yield_now();
    }

    /// Tells the core that this is a busy wait.
    #[inline]
    pub fn spin_loop() {
        std::hint::spin_loop();
    }

    /// A value behind a lock that is only ever held for a few instructions.
    ///
    /// No foreign code, no allocation of unknown size, no system call and nothing that can take
    /// another lock runs while it is held, so that waiting for it is bounded by a preemption.
    #[derive(Debug, Default)]
    pub struct Spin<T> {
        taken: AtomicBool,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is reached only through a guard, of which `taken` admits one at a time, so
    // sharing a `Spin` hands the value from thread to thread: `T: Send` is what that needs.
    unsafe impl<T: Send> Sync for Spin<T> {}
    // SAFETY: moving the whole cell moves the value with it.
    unsafe impl<T: Send> Send for Spin<T> {}

    impl<T> Spin<T> {
        /// An unlocked cell.
        pub const fn new(value: T) -> Self {
            Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }

        /// Takes the lock, spinning and then yielding the core while another thread has it.
        #[inline]
        pub fn lock(&self) -> SpinGuard<'_, T> {
            if self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
                self.lock_slow();
            }
            SpinGuard { cell: self }
        }

        #[cold]
        fn lock_slow(&self) {
            let mut tries = 0u32;
            loop {
                while self.taken.load(Ordering::Relaxed) {
                    tries += 1;
                    if tries < 64 { spin_loop() } else { yield_now() }
                }
                if self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return;
                }
            }
        }

        /// Looks at the value without locking.
        ///
        /// # Safety
        /// Until `look` returns no other thread takes the lock, or has it.
        #[inline]
        pub unsafe fn unlocked<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: the caller's: nobody else has a reference.
            look(unsafe { &mut *self.value.get() })
        }

        /// The value, without locking: the borrow proves that nobody else has it.
        pub fn get_mut(&mut self) -> &mut T {
            self.value.get_mut()
        }

        /// The value, moved out.
        pub fn into_inner(self) -> T {
            self.value.into_inner()
        }

        /// Forgets a holder that does not exist any more, in a forked child.
        ///
        /// The value may be halfway through a change; the caller replaces it.
        pub(crate) fn break_after_fork(&self) {
            self.taken.store(false, Ordering::Release);
        }

        /// [`break_after_fork`](Self::break_after_fork), and then the value, which `repair` makes good.
        pub fn lock_after_fork(&self, repair: impl FnOnce(&mut T)) {
            self.break_after_fork();
            repair(&mut self.lock());
        }
    }

    /// Holds a [`Spin`]; lets go when dropped.
    #[derive(Debug)]
    pub struct SpinGuard<'a, T> {
        cell: &'a Spin<T>,
    }

    impl<T> Deref for SpinGuard<'_, T> {
        type Target = T;
        #[inline]
        fn deref(&self) -> &T {
            // SAFETY: this guard is the only one, so nobody changes the value meanwhile.
            unsafe { &*self.cell.value.get() }
        }
    }

    impl<T> DerefMut for SpinGuard<'_, T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: this guard is the only one and is borrowed mutably, so the reference is unique.
            unsafe { &mut *self.cell.value.get() }
        }
    }

    impl<T> Drop for SpinGuard<'_, T> {
        #[inline]
        fn drop(&mut self) {
            self.cell.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(raddle_loom)]
mod modelled {
    use super::{Ordering, fence};
    use loom::sync::{Condvar, Mutex, MutexGuard};
    use std::ops::Deref;

    /// The fence behind a write with this ordering.
    fn settle(order: Ordering) {
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
    }

    macro_rules! atomic {
        ($atomic:ident, $value:ty: $($name:ident)*) => {
            /// loom's atomic, with a fence behind each `SeqCst` write.
            ///
            /// loom takes `SeqCst` accesses for acquire and release ones; only its fences are sequentially
            /// consistent. A fence behind the write is what keeps a later load from going first, which is what
            /// the crate uses `SeqCst` for. It is blind to a load that is weaker than it should be.
            #[derive(Debug, Default)]
            pub struct $atomic(loom::sync::atomic::$atomic);

            impl $atomic {
                /// One with this value.
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$atomic::new(value))
                }

                /// As the standard library's.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.0.load(order)
                }

                /// As the standard library's.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, order);
                    settle(order);
                }

                $(
                    /// As the standard library's.
                    #[track_caller]
                    pub fn $name(&self, value: $value, order: Ordering) -> $value {
                        let before = self.0.$name(value, order);
                        settle(order);
                        before
                    }
                )*

                /// As the standard library's.
                ///
                /// # Errors
                /// The value found, if it was not `current`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    ok: Ordering,
                    fail: Ordering,
                ) -> Result<$value, $value> {
                    let result = self.0.compare_exchange(current, new, ok, fail);
                    settle(if result.is_ok() { ok } else { fail });
                    result
                }

                /// As the standard library's, but it does not fail without a reason.
                ///
                /// # Errors
                /// The value found, if it was not `current`.
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    ok: Ordering,
                    fail: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(current, new, ok, fail)
                }
            }
        };
    }
    atomic!(AtomicU32, u32: swap fetch_add fetch_sub fetch_and fetch_or fetch_max);
    atomic!(AtomicI64, i64: fetch_add);

    /// The model's futex: the word, and a gate that makes check and sleep one step.
    #[derive(Debug)]
    pub struct Futex {
        word: AtomicU32,
        gate: Mutex<()>,
        bell: Condvar,
    }

    impl Default for Futex {
        fn default() -> Self {
            Self::new(0)
        }
    }

    impl Futex {
        /// A word with this value and nobody asleep on it.
        pub fn new(value: u32) -> Self {
            Self { word: AtomicU32::new(value), gate: Mutex::new(()), bell: Condvar::new() }
        }

        /// Sleeps unless the word has changed. The model has no clock and no signals: `ended` is asked
        /// in their place, once before the sleep (true: it ends unwoken) and once after it (true: it
        /// ends although it was woken, so that a wake-up is used up).
        pub(crate) fn model_sleep(&self, expected: u32, mut ended: impl FnMut() -> bool) {
            let gate = self.gate.lock().unwrap();
            if self.word.load(Ordering::SeqCst) != expected || ended() {
                return;
            }
            drop(self.bell.wait(gate).unwrap());
            ended();
        }

        /// Wakes sleepers; passing through the gate orders it after a sleeper's check.
        pub(crate) fn wake(&self, count: u32) {
            let _gate = self.gate.lock().unwrap();
            if count == 1 { self.bell.notify_one() } else { self.bell.notify_all() }
        }
    }

    impl Deref for Futex {
        type Target = AtomicU32;
        fn deref(&self) -> &AtomicU32 {
            &self.word
        }
    }

    loom::lazy_static! {
        static ref NEXT_TOKEN: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(1);
    }
    loom::thread_local! {
        static TOKEN: usize = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
    }

    /// A number of its own for each thread of the model, never 0.
    pub fn thread_token() -> usize {
        TOKEN.with(|token| *token)
    }

    /// A scheduling point of the model.
    pub fn yield_now() {
        loom::thread::yield_now();
    }

    /// A scheduling point of the model.
    pub fn spin_loop() {
        loom::hint::spin_loop();
    }

    /// A value behind a lock of the model.
    #[derive(Debug, Default)]
    pub struct Spin<T>(Mutex<T>);

    /// Holds a [`Spin`]; lets go when dropped.
    pub type SpinGuard<'a, T> = MutexGuard<'a, T>;

    impl<T> Spin<T> {
        /// An unlocked cell.
        pub fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        /// Takes the lock.
        pub fn lock(&self) -> SpinGuard<'_, T> {
            self.0.lock().unwrap()
        }

        /// Looks at the value; here under the lock.
        ///
        /// # Safety
        /// None is needed here.
        pub unsafe fn unlocked<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
            look(&mut self.lock())
        }
    }
}
