//! A database inside a program: `cargo run --release --example embedded`.

#[tokio::main]
async fn main() -> Result<(), dormouse::Error> {
    let dormouse = dormouse::Dormouse::open("./dormouse-data/embedded").await?;
    let shop = dormouse.database("shop")?;
    shop.query(
        "create table if not exists fruit (name text primary key, price numeric)",
        &[],
    )
    .await?;
    let insert =
        "insert into fruit values ($1, $2) on conflict (name) do update set price = excluded.price";
    shop.query(insert, &[&"apple", &1.5]).await?;
    shop.query(insert, &[&"quince", &None::<f64>]).await?;
    for row in &shop
        .query("select name, price from fruit order by name", &[])
        .await?
    {
        println!(
            "{}: {:?}",
            row.get::<String>("name")?,
            row.get::<Option<f64>>("price")?
        );
    }
    dormouse.close().await
}
