"""What a worker tells about itself: metrics, probes, readiness."""
