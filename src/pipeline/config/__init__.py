"""Configuration: composed by Hydra, judged as a whole before anything is read, built in one place."""
