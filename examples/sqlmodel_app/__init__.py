"""SQLModel's tutorial on a cluster: heroes, teams and missions."""
