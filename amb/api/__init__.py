"""What plugins build on: components, the values that pass between them, and the interfaces that they implement."""
