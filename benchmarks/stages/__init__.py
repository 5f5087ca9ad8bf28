"""Where a worker's processor time goes, stage by stage."""
