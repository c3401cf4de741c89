"""How does a batch run without Airflow? `spec` reads what is wanted from one small file, `drive` carries it out."""
