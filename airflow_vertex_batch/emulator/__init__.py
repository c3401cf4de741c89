"""What does Vertex AI do with a batch job? A local server that answers the batchPredictionJobs API and runs the jobs.

======================================================  ================================================================
module                                                  answers
======================================================  ================================================================
:mod:`~airflow_vertex_batch.emulator.server`            HTTP: the command's server and the ASGI app
:mod:`~airflow_vertex_batch.emulator.rest`              which call is this, and what is the answer? (no HTTP library)
:mod:`~airflow_vertex_batch.emulator.resource`          is this create body acceptable, and how does a job look in JSON?
:mod:`~airflow_vertex_batch.emulator.filters`           the grammar of ``filter=``
:mod:`~airflow_vertex_batch.emulator.service`           `Emulator`: the jobs, the clock, the driver, the data folder
:mod:`~airflow_vertex_batch.emulator.jobs`              the state machine of one job
:mod:`~airflow_vertex_batch.emulator.run`               the work behind RUNNING: import, answer, write
:mod:`~airflow_vertex_batch.emulator.importer`          the rules the request file must pass, as a whole
:mod:`~airflow_vertex_batch.emulator.rowcheck`          the rules one request must pass
:mod:`~airflow_vertex_batch.emulator.rows`              one request in, its output lines and its price out
:mod:`~airflow_vertex_batch.emulator.models`            who answers
:mod:`~airflow_vertex_batch.emulator.scenario`          switches, pace, limits and scripted faults as data
:mod:`~airflow_vertex_batch.emulator.faults`            what each fault does
======================================================  ================================================================

It imports neither Airflow nor Google: Cloud Storage and BigQuery come in through the ports of `core.domain.ports`.
"""
