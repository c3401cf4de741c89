"""What came back? Output lines are joined to their requests and judged row by row. Also: which rows are sent again."""
