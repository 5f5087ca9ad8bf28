"""The contract between producers and workers: messages, answers, and the names of tasks, queues and keys."""
