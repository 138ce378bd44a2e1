CREATE TABLE "stock" (
	"animal_id" integer NOT NULL,
	"food" text NOT NULL,
	"count" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "stock_animal_id_food_pk" PRIMARY KEY("animal_id","food"),
	CONSTRAINT "stock_count_check" CHECK ("stock"."count" >= 0)
);
--> statement-breakpoint
ALTER TABLE "stock" ADD CONSTRAINT "stock_animal_id_animals_id_fk" FOREIGN KEY ("animal_id") REFERENCES "public"."animals"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "stock_food_index" ON "stock" USING btree ("food");
