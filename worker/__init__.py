"""The worker side of nameshot: a Celery worker with a loaded model. It imports `producer`, never the reverse."""
