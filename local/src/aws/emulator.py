"""MiniStack, with long polls that wait for messages instead of looking for them ten times a second.

A receive of MiniStack 1.5 looks, sleeps for a tenth of a second, and looks again. Here it looks, and then waits until
something is sent to its queue, until a message of the queue becomes visible (a delay or a visibility timeout ends), or
until its time is over. When MiniStack is asked to end, all waits end at once.
"""

import asyncio
import signal
import time

import hypercorn.asyncio

from ministack import app
from ministack.services import sqs

# What else may change a queue (a dead-letter queue's redrive, an administrator) is seen after this long.
LOOK_AGAIN_S = 1.0
# What makes messages visible.
CHANGES = ("SendMessage", "SendMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch")

actions = sqs._HANDLERS
receive = actions["ReceiveMessage"]
changes = {}
ending = asyncio.Event()


def name_of(data, queue):
    """The name of the queue of a request: its URL may name the emulator in several ways."""
    return (data.get("QueueUrl") or queue).rsplit("/", 1)[-1]


def tell(name):
    """Wakes who waits for a queue."""
    change = changes.pop(name, None)
    if change is not None:
        change.set()


def telling(action):
    def act(data, queue):
        answer = action(data, queue)
        tell(name_of(data, queue))
        return answer

    return act


def seconds_to_next(data, queue, since):
    """How long until the next message becomes visible that was not visible at `since`."""
    messages = sqs._get_q(data.get("QueueUrl") or queue)["messages"]
    due = [message["visible_at"] for message in messages if message["visible_at"] > since]
    return max(0.0, min(due, default=since + LOOK_AGAIN_S) - time.time())


async def patient_receive(data, queue):
    wait_s = data.get("WaitTimeSeconds")
    if wait_s is None:
        attributes = sqs._get_q(data.get("QueueUrl") or queue)["attributes"]
        wait_s = attributes.get("ReceiveMessageWaitTimeSeconds", "0")
    deadline = time.monotonic() + int(wait_s)
    while True:
        change = changes.setdefault(name_of(data, queue), asyncio.Event())
        since = time.time()
        answer = await receive({**data, "WaitTimeSeconds": 0}, queue)
        left_s = deadline - time.monotonic()
        if answer or left_s <= 0 or ending.is_set():
            return answer
        try:
            limit_s = min(left_s, seconds_to_next(data, queue, since), LOOK_AGAIN_S)
            await asyncio.wait_for(change.wait(), limit_s)
        except asyncio.TimeoutError:
            pass


def end():
    ending.set()
    for name in list(changes):
        tell(name)


serve = hypercorn.asyncio.serve


async def serve_until_ended(application, config):
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    await serve(application, config, shutdown_trigger=ending.wait)


for name in CHANGES:
    actions[name] = telling(actions[name])
actions["ReceiveMessage"] = patient_receive
hypercorn.asyncio.serve = serve_until_ended
app.main()
