"""Tables, pages and leaderboards of runs, written from what runs left."""
