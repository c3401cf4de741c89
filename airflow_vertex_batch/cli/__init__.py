"""What can be done from a terminal? ``airflow-vertex-batch``, a file a command."""
