"""Which servers does this project need on one machine, and how are they started, watched and stopped?

For development only: the demo, the tests and ``make up`` use it; the wheel does not contain it.

======================  ==============================================================================================
module                  answers ======================
============================================================================================== :mod:`stack.process`
one server process: start, wait until healthy, stop, kill; nothing outlives its parent :mod:`stack.watchdog`   the small
process that ends the servers if their parent has died without ending them :mod:`stack.servers`    Cloud Storage,
BigQuery and our own emulator :mod:`stack.postgres`   PostgreSQL for Airflow's metadata :mod:`stack.airflow`    Airflow:
a migrated database, scheduler, triggerer, dag processor, API server :mod:`stack.client`     a small client of Airflow's
REST API :mod:`stack.laptop`     all of them as one value, and the environment variables their clients want
======================  ==============================================================================================
"""
