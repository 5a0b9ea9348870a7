-- Users and permissions; runs and metrics have the database mlflow, which the image makes.
CREATE DATABASE mlflow_auth;
