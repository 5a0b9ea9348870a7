# The MLflow server of compose.yaml: the version that constraints.txt pins, with drivers for PostgreSQL and S3.
#   docker build --file docker/mlflow.Dockerfile --tag medical-pipeline-mlflow .

ARG BASE=docker.io/library/debian:bookworm-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BASE} AS packages
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3-venv
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY constraints.txt /
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --constraint /constraints.txt \
        "mlflow[auth]" "psycopg[binary]" boto3

FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /usr/sbin/nologin mlflow
COPY --from=packages /opt/venv /opt/venv
COPY docker/basic_auth.ini /etc/mlflow/
COPY --chmod=755 docker/mlflow_server.sh /usr/local/bin/mlflow_server
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 MLFLOW_AUTH_CONFIG_PATH=/etc/mlflow/basic_auth.ini \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /home/mlflow
USER mlflow
EXPOSE 5000
ENTRYPOINT ["mlflow_server"]
