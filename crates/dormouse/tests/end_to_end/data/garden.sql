/* A script as people have them: it makes its own database, goes there, and fills it. */
DROP DATABASE IF EXISTS garden;


CREATE DATABASE garden;


\c garden;


CREATE TABLE bed
(
    bed_id INT NOT NULL,
    name VARCHAR(40) NOT NULL,
    CONSTRAINT bed_pkey PRIMARY KEY (bed_id)
);

CREATE TABLE plant
(
    plant_id INT GENERATED ALWAYS AS IDENTITY,
    bed_id INT NOT NULL,
    name TEXT,
    height NUMERIC(6,2),
    planted TIMESTAMP WITH TIME ZONE DEFAULT '2026-04-01 12:00:00+00',
    tags TEXT[],
    note JSONB,
    photo BYTEA,
    CONSTRAINT plant_pkey PRIMARY KEY (plant_id)
);

ALTER TABLE plant ADD CONSTRAINT plant_bed_id_fkey
    FOREIGN KEY (bed_id) REFERENCES bed (bed_id) ON DELETE NO ACTION;
CREATE INDEX plant_bed_id_idx ON plant (bed_id);

CREATE FUNCTION heights(wanted INT) RETURNS NUMERIC LANGUAGE plpgsql AS $$
DECLARE
    sum NUMERIC := 0;
    one RECORD;
BEGIN
    FOR one IN SELECT height FROM plant WHERE bed_id = wanted LOOP
        sum := sum + coalesce(one.height, 0);
    END LOOP;
    RETURN sum;
END $$;

CREATE VIEW tall AS SELECT name, height FROM plant WHERE height > 100;

INSERT INTO bed (bed_id, name) VALUES
    (1, N'South; by the wall'),
    (2, N'Ä''s bed');

COPY plant (bed_id, name, height, tags, note, photo) FROM stdin;
1	Sunflower	210.50	{yellow,"very tall"}	{"water": 2.50, "likes": ["sun"]}	\\x00ff
1	Bean\twith a tab	180	{}	\N	\N
2	\N	\N	\N	null	\\x
\.

SELECT heights(1);
