"""One self-contained HTML file about one or several runs."""
