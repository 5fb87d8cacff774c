"""What decides: whole strategies and their parts (compactions, schedules, orders, prompts)."""
