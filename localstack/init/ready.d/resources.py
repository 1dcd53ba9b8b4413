"""Creates the queues, the bucket and the secret of NOFX_RESOURCES when LocalStack is ready, in the container and in host mode.
LocalStack runs it in its own process. Running it again changes nothing."""

import json
import os

import boto3
from botocore.exceptions import ClientError
from localstack import config

wanted = json.loads(os.environ["NOFX_RESOURCES"])


def client(service):
    return boto3.client(
        service,
        endpoint_url=config.internal_service_url(),
        region_name=wanted["region"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


sqs = client("sqs")


def make_queue(name, attributes):
    # Set attributes in a second call: SQS refuses to create an existing queue with different attributes.
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    if attributes:
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


for queue in wanted["queues"]:
    prefix = os.environ.get("SQS_PREFIX", wanted["queue_prefix"])
    dead_letters = make_queue(prefix + queue["dead_letter_queue"], {})
    redrive = {"deadLetterTargetArn": dead_letters, "maxReceiveCount": str(wanted["receives_max"])}
    attributes = {"VisibilityTimeout": str(queue["visibility_s"]), "RedrivePolicy": json.dumps(redrive)}
    make_queue(prefix + queue["queue"], attributes)

# In us-east-1, creating a bucket that you own succeeds.
client("s3").create_bucket(Bucket=wanted["bucket"])

try:
    client("secretsmanager").create_secret(Name=wanted["secret"], SecretString="{}")
except ClientError as error:
    if error.response["Error"]["Code"] != "ResourceExistsException":
        raise
