"""What people read: tables, layouts, figures, formats and the page."""
