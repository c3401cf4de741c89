"""What can be done from a terminal? ``airflow-vertex-batch``: each command has a file here."""
