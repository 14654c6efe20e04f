"""Results for people: terminal tables, plots, HTML pages."""
