"""Chapter 21: processes have no variables in common; queues and pipes carry what they have to tell each other.

Shows a queue filled by several processes, a queue that is shut down for all its readers, and a conversation
over a pipe that ends when one side closes it.

Run it with:  python examples/ch21_queue_and_pipe.py
"""

from raddle.multiprocessing import Pipe, Process, Queue, ShutDown

# A list that a child appends to is the child's own copy. A queue is shared.

seen = []


def look_around(place, found):
    seen.append(place)
    found.put(f"saw the {place}")


def translate(words, results):
    dictionary = {"one": "eins", "two": "zwei", "three": "drei"}
    while True:
        try:
            word = words.get()
        except ShutDown:
            return
        results.put((word, dictionary[word]))


def answer(end, count):
    """Sends so many messages back in capitals, and hangs up."""
    for _ in range(count):
        end.send(end.recv().upper())
    end.send_bytes(b"goodbye, everybody", 0, 7)
    end.close()


if __name__ == "__main__":
    found = Queue()
    children = [Process(target=look_around, args=(place, found)) for place in ("garden", "kitchen")]
    for child in children:
        child.start()
    for child in children:
        child.join()  # before the queue is read: what a child has put stays when it has ended
    print("list:", seen)
    print("queue:", sorted(found.get() for _ in children))

    words, results = Queue(), Queue()
    translators = [Process(target=translate, args=(words, results)) for _ in range(2)]
    for translator in translators:
        translator.start()
    for word in ("one", "two", "three"):
        words.put(word)
    words.shutdown()  # each reader gets what is left, then ShutDown
    for translator in translators:
        translator.join()
    print("translated:", dict(sorted(results.get() for _ in range(3))))

    mine, theirs = Pipe()
    child = Process(target=answer, args=(theirs, 2))
    child.start()
    theirs.close()  # the child's copy is the only one now
    for text in ("hello", "any news?"):
        mine.send(text)
        print("answer:", mine.recv())
    print("within five seconds:", mine.poll(5), mine.recv_bytes())
    try:
        mine.recv()
    except EOFError:
        print("the other end is closed")
    child.join()
