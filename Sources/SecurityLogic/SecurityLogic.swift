// SecurityLogic
