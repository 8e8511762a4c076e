"""Child processes, and what several processes of ours share."""
