// Component
