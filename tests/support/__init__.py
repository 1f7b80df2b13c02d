"""What tests of several directories share, a module for each purpose; none of them holds a test."""
