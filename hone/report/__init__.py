"""What a run tells people: the live line, the tables, the report, the model card and other people's trackers."""
