#!/bin/sh
# Entry of the MLflow container: secrets into the environment of this process alone, the bucket, the tables, the server.
# mlflow_server COMMAND... runs a command with the same environment, such as: mlflow_server mlflow db upgrade ...
set -eu

secret() {
    if [ ! -s "/run/secrets/$1" ]; then
        echo "error: the secret $1 is missing or empty: fill in docker/.env" >&2
        exit 2
    fi
    cat "/run/secrets/$1"
}

PGPASSWORD=$(secret postgres_password)
AWS_SECRET_ACCESS_KEY=$(secret s3_secret_key)
export PGPASSWORD AWS_SECRET_ACCESS_KEY
[ $# -eq 0 ] || exec "$@"

MLFLOW_AUTH_ADMIN_PASSWORD=$(secret admin_password)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret session_key)
export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY

python - "$MLFLOW_S3_ENDPOINT_URL" "${MLFLOW_ARTIFACTS_DESTINATION#s3://}" <<'PYTHON'
import sys

import boto3

endpoint, place = sys.argv[1:]
bucket = place.partition("/")[0]
client = boto3.client("s3", endpoint_url=endpoint)
if bucket not in [known["Name"] for known in client.list_buckets()["Buckets"]]:
    client.create_bucket(Bucket=bucket)
PYTHON

exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers "${MLFLOW_WORKERS:-4}"
