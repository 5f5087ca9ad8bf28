"""What knows Celery, apart from the delivery: messages become jobs, jobs become answers."""
