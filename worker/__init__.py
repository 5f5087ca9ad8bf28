"""The worker side of nameshot: a Celery worker with a loaded model. `worker` imports `producer`, never the reverse."""
