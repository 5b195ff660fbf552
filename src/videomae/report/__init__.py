"""What people look at: pictures, plots, pages, cards."""
