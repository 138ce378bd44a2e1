drop table animal;
drop type mood;
