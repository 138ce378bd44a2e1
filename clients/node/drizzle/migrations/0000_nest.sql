CREATE TYPE "public"."mood" AS ENUM('asleep', 'awake');--> statement-breakpoint
CREATE TABLE "animals" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "animals_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"name" varchar(40) NOT NULL,
	"mood" "mood" DEFAULT 'asleep' NOT NULL,
	"weight" numeric(8, 2),
	"born" timestamp with time zone DEFAULT now() NOT NULL,
	"tag" uuid DEFAULT gen_random_uuid() NOT NULL,
	"traits" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"colours" text[],
	"steps" bigint,
	CONSTRAINT "animals_name_unique" UNIQUE("name")
);
