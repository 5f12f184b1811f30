"""The tour's first stop: a deadlock that explains itself.

A plain program, with nothing of raddle in it. Two transfers between the same two accounts run at once, one
each way; each takes the lock of the paying account first. Under python it hangs without a word:

    python examples/tour_deadlock.py            (end it with Ctrl-C)
    raddle run examples/tour_deadlock.py
"""

import threading


class Account:
    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance
        self.lock = threading.RLock()


def transfer(payer, payee, amount):
    with payer.lock:
        both_have_begun.wait()  # makes sure that it happens at every run
        with payee.lock:
            payer.balance -= amount
            payee.balance += amount
    print(f"{payer.owner} has paid {payee.owner} {amount}", flush=True)


both_have_begun = threading.Barrier(2)
ann, ben = Account("Ann", 100), Account("Ben", 100)
transfers = [
    threading.Thread(target=transfer, args=(ann, ben, 30), name="Ann-to-Ben"),
    threading.Thread(target=transfer, args=(ben, ann, 50), name="Ben-to-Ann"),
]
for thread in transfers:
    thread.start()
for thread in transfers:
    thread.join()
print("balances:", ann.balance, ben.balance)
