"""MiniStack, with long polls that wait for messages instead of checking ten times a second, and with a lifecycle of the bucket.

A receive of MiniStack 1.5 checks its queue, sleeps for 0.1 s, and checks again. Here it checks once and then waits until a message
is sent to its queue, until a message becomes visible (its delay or visibility timeout ends), or until its time is over. When
MiniStack gets a signal to stop, all waits end at once.

MiniStack has GLACIER and restores, which take 2 s, but applies no lifecycle rule. Here an object is moved to GLACIER when it gets the
tag of the rule `archive-tagged` in template.yaml. On AWS that takes up to two days.
"""

import asyncio
import signal
import time

import hypercorn.asyncio

from ministack import app
from ministack.services import s3, sqs

# Other changes of a queue, such as a redrive of a dead-letter queue, are seen after this time.
RECHECK_S = 1.0
# The tag of template.yaml's lifecycle rule.
ARCHIVE_TAG, ARCHIVE_VALUE = "nofx-storage", "cold"
# Actions that make messages visible.
CHANGES = ("SendMessage", "SendMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch")

actions = sqs._HANDLERS
receive = actions["ReceiveMessage"]
changes = {}
stopping = asyncio.Event()


def name_of(data, queue):
    """The name of a request's queue. URLs may name the emulator's host in several ways."""
    return (data.get("QueueUrl") or queue).rsplit("/", 1)[-1]


def notify(name):
    """Wakes the receives that wait for a queue."""
    change = changes.pop(name, None)
    if change is not None:
        change.set()


def notifying(action):
    def act(data, queue):
        answer = action(data, queue)
        notify(name_of(data, queue))
        return answer

    return act


def seconds_to_next(data, queue, since):
    """Time until the next message becomes visible that was not visible at `since`."""
    messages = sqs._get_q(data.get("QueueUrl") or queue)["messages"]
    due = [message["visible_at"] for message in messages if message["visible_at"] > since]
    return max(0.0, min(due, default=since + RECHECK_S) - time.time())


async def waiting_receive(data, queue):
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
        if answer or left_s <= 0 or stopping.is_set():
            return answer
        try:
            limit_s = min(left_s, seconds_to_next(data, queue, since), RECHECK_S)
            await asyncio.wait_for(change.wait(), limit_s)
        except asyncio.TimeoutError:
            pass


def stop():
    stopping.set()
    for name in list(changes):
        notify(name)


serve = hypercorn.asyncio.serve


async def serve_until_stopped(application, config):
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await serve(application, config, shutdown_trigger=stopping.wait)


put_object_tagging = s3._put_object_tagging


def archiving_put_object_tagging(bucket_name, key, body, query_params=None):
    answer = put_object_tagging(bucket_name, key, body, query_params)
    if answer[0] == 200:
        bucket = s3._ensure_bucket(bucket_name)
        stored = bucket["objects"][key]
        tags = s3._object_tags.get((bucket_name, key, s3._resolve_subresource_version(query_params, bucket, key)), {})
        if tags.get(ARCHIVE_TAG) == ARCHIVE_VALUE and stored.get("size", 0) > 0:
            stored["storage_class"] = "GLACIER"
            s3._persist_version_state(bucket_name, key, bucket)
    return answer


for name in CHANGES:
    actions[name] = notifying(actions[name])
actions["ReceiveMessage"] = waiting_receive
s3._put_object_tagging = archiving_put_object_tagging
hypercorn.asyncio.serve = serve_until_stopped
app.main()
