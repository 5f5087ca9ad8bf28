"""Everything that depends on Celery except the delivery: the tasks, their messages, answers and start checks."""
