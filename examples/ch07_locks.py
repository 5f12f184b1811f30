"""Chapter 7: locks keep an account right.

Shows a lost update: two threads read the balance before either writes it. Then the same withdrawals under a
Lock, a bank whose methods call each other under an RLock, and what raddle's locks know about themselves.

Run it with:  python examples/ch07_locks.py
"""

import time

from raddle.threading import Barrier, Lock, RLock, Thread, current_thread


def both(function, *args):
    threads = [Thread(target=function, args=args, name=name) for name in ("Ann", "Ben")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Unsafe:
    """The Barrier makes certain what otherwise happens now and then: both read before either writes."""

    def __init__(self, balance):
        self.balance = balance
        self.both_have_read = Barrier(2)

    def withdraw(self, amount):
        balance = self.balance
        self.both_have_read.wait()
        self.balance = balance - amount


unsafe = Unsafe(1000)
both(unsafe.withdraw, 300)
print("without a lock: two withdrawals of 300 from 1000 leave", unsafe.balance)


class Safe:
    def __init__(self, balance):
        self.balance = balance
        self.lock = Lock(name="account")

    def withdraw(self, amount):
        with self.lock:
            self.balance -= amount


safe = Safe(1000)
both(safe.withdraw, 300)
print("with a lock:    two withdrawals of 300 from 1000 leave", safe.balance)


class Bank:
    """Every method takes the lock, and transfer() calls the two others while it holds it: the lock must be
    reentrant."""

    def __init__(self, **balances):
        self.balances = balances
        self.lock = RLock(name="bank")

    def deposit(self, name, amount):
        with self.lock:
            self.balances[name] += amount

    def withdraw(self, name, amount):
        with self.lock:
            if amount > self.balances[name]:
                raise ValueError(f"{name} has only {self.balances[name]}")
            self.balances[name] -= amount

    def transfer(self, payer, payee, amount):
        with self.lock:
            self.withdraw(payer, amount)
            self.deposit(payee, amount)


bank = Bank(ann=500, ben=0)
bank.transfer("ann", "ben", 200)
print("after the transfer:", bank.balances)
try:
    bank.transfer("ann", "ben", 400)
except ValueError as error:
    print("refused:", error, "- the lock is free again:", bank.lock.owner is None)

with safe.lock:
    owner = safe.lock.owner
    print(
        "the lock", repr(safe.lock.name), "is held by", owner.name, "- that is us:", owner is current_thread()
    )
    waiter = Thread(target=safe.withdraw, args=(1,), name="Cleo")
    waiter.start()
    while not safe.lock.waiters:
        time.sleep(0.001)
    print("waiting for it:", safe.lock.waiters)
waiter.join()
