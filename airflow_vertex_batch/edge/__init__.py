"""How does a batch live in an Airflow task? How it waits, cancels, asks a person, and what this Airflow can do."""
