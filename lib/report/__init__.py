"""From results to tables, figures and claims."""
