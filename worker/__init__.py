"""The worker side of nameshot: a Celery worker that holds a loaded model. Imports `producer`, never the reverse."""
