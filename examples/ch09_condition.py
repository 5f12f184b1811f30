"""Chapter 9: conditions: waiting until something is true.

An account that takes a deposit only when it is empty and a withdrawal only when it is not, so that the two
take turns whatever the scheduler does. Three depositors and one customer share the work. Every thread goes on
only when its condition holds, and every change is announced; that the numbers add up is what lets the program
end.

Run it with:  python examples/ch09_condition.py
"""

from raddle.threading import Condition, Thread

DEPOSITORS, EACH, AMOUNT = 3, 20, 50


class Account:
    def __init__(self):
        self.balance = 0
        self.history = []
        self.changed = Condition(name="account")

    def deposit(self, amount):
        with self.changed:
            self.changed.wait_for(lambda: self.balance == 0)
            self.balance += amount
            self.history.append(amount)
            self.changed.notify_all()

    def withdraw(self, amount):
        with self.changed:
            # The same as wait_for(), written out: a thread that wakes up has to look again.
            while self.balance < amount:
                self.changed.wait()
            self.balance -= amount
            self.history.append(-amount)
            self.changed.notify_all()


def repeat(times, action):
    for _ in range(times):
        action(AMOUNT)


account = Account()
threads = [Thread(target=repeat, args=(EACH, account.deposit)) for _ in range(DEPOSITORS)]
threads.append(Thread(target=repeat, args=(DEPOSITORS * EACH, account.withdraw)))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

print("entries:", len(account.history), "balance:", account.balance)
print("in turns:", account.history == [AMOUNT, -AMOUNT] * (DEPOSITORS * EACH))

with account.changed:
    print("nobody deposits any more:", account.changed.wait_for(lambda: account.balance > 0, timeout=0.05))
