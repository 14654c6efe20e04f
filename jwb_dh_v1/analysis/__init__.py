"""What results say: comparison, diagnosis, ablation, leaderboard, submission check, export."""
