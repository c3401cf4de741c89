"""How does a batch run in an Airflow task? Waiting, cancelling, asking a person, and what this Airflow can do."""
