"""What came back? Output lines, joined to their requests and judged row by row; and which rows go again."""
